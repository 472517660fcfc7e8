//! The tables of what KubeFed did, and of what its users asked for, name only tests that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The lines of the tables in a document: what is done, and the tests that show it.
fn lines(document: &str) -> Vec<(String, Vec<(String, String)>)> {
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains("::"));
    let cells = rows.map(|row| {
        let row = row.trim_matches(['|', ' ']);
        let (what, tests) = row.rsplit_once(" | ").expect("a line has two cells");
        let named = tests.split(", ").map(|test| {
            let name = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            let name = name.unwrap_or_else(|| panic!("{test} is not `file::test`"));
            let (file, test) = name.split_once("::").expect("file::test");
            (file.to_owned(), test.to_owned())
        });
        (what.to_owned(), named.collect())
    });
    cells.collect()
}

/// Whether a source has a test function of this name, and runs it.
fn has_test(source: &str, name: &str) -> bool {
    let (mut is_test, mut ignored) = (false, false);
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            ignored |= line.starts_with("#[ignore");
        } else if let Some((_, function)) = line.split_once("fn ") {
            let is_it = function.strip_prefix(name).is_some_and(|rest| rest.starts_with('('));
            if is_it && is_test && !ignored {
                return true;
            }
            (is_test, ignored) = (false, false);
        }
    }
    false
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a document")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// Fails if a line comes twice, or names a test that there is not.
fn check(lines: &[(String, Vec<(String, String)>)]) {
    let mut told = BTreeSet::new();
    for (what, tests) in lines {
        assert!(told.insert(what), "{what:?} comes twice");
        for (file, test) in tests {
            let source = fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|error| panic!("{what}: {file}: {error}"));
            assert!(has_test(&source, test), "{what}: {file} has no test {test}");
        }
    }
}

#[test]
fn every_wish_is_answered_and_what_is_done_is_shown() {
    let document = document("differences-from-kubefed.md");
    let rows = document.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<Vec<&str>> =
        rows.map(|row| row.trim_matches(['|', ' ']).split(" | ").collect()).collect();
    assert!(rows.len() > 15, "{} wishes", rows.len());
    for row in &rows {
        let [wish, answer, shown] = row.as_slice() else { panic!("{row:?} has not three cells") };
        let is_done = answer.starts_with("Yes") || answer.starts_with("In part: ");
        assert!(is_done || answer.starts_with("No, because "), "{wish}: {answer}");
        assert_eq!(is_done, shown.contains("::"), "{wish}: {shown}");
    }
    check(&lines(&document));
}

#[test]
fn every_test_that_the_parity_table_names_is_there() {
    let document = document("kubefed-parity.md");
    let lines = lines(&document);
    let rows = document.lines().filter(|line| line.starts_with("| ")).count();
    let heads = document.lines().filter(|line| line.starts_with("|---")).count();
    assert_eq!(lines.len(), rows - heads, "every line of a table names a test");
    assert!(lines.len() > 50, "{} lines", lines.len());
    check(&lines);
}

#[test]
fn a_function_that_is_no_test_or_is_not_run_does_not_count() {
    let source = "#[test]\nfn one() {}\n    #[tokio::test(flavor = \"multi_thread\")]\n    async fn two() {}\nfn three() {}\n#[test]\n#[ignore]\nfn four() {}";
    for (name, counts) in
        [("one", true), ("two", true), ("three", false), ("four", false), ("on", false)]
    {
        assert_eq!(has_test(source, name), counts, "{name}");
    }
}
