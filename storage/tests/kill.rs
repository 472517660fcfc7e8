//! An embedded store whose process is killed keeps what it has acknowledged.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use futures::future::join_all;
use kubefed_storage::{Commit, Range, embedded};

const ROUNDS: usize = 20;
const WRITERS: usize = 16;
/// Tells the child where the store is, and that it is the child.
const DIRECTORY: &str = "KUBEFED_TEST_STORE";
const ACKNOWLEDGED: &str = "acknowledged";

#[tokio::test]
async fn every_acknowledged_write_outlives_the_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        // A different point each time, from the first commit to well into it.
        acknowledged.extend(write_and_kill(directory.path(), 1 + round * 37));
        let store = embedded::open(directory.path()).await.expect("the store opens again");
        let page = store.range(Range::all("/")).await.expect("it can be read");
        let found: BTreeMap<&str, u64> =
            page.entries.iter().map(|entry| (&*entry.key, entry.mod_revision)).collect();
        for (key, revision) in &acknowledged {
            assert_eq!(found.get(key.as_str()), Some(revision), "{key} in round {round}");
        }
        // The history has no gap either: every key was written once.
        let mut watch = store.watch("/", 2).await.expect("the history");
        let mut next = 2;
        while next <= page.revision {
            let batch = watch.next().await.expect("a batch").expect("no error");
            for event in batch.events {
                assert_eq!(event.entry.mod_revision, next);
                next += 1;
            }
        }
    }
}

/// Runs the child until it has told of so many writes, and kills it.
fn write_and_kill(directory: &Path, count: usize) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["the_child_writes_until_it_is_killed", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut acknowledged = BTreeMap::new();
    let mut line = String::new();
    let mut alive = true;
    // What it has written before its end is still in the pipe.
    while lines.read_line(&mut line).expect("text") > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The last line may be cut.
        if let [ACKNOWLEDGED, key, revision, "."] = words[..] {
            acknowledged.insert(key.to_owned(), revision.parse().expect("a revision"));
        }
        line.clear();
        if alive && acknowledged.len() >= count {
            child.kill().expect("it can be killed");
            alive = false;
        }
    }
    child.wait().expect("it ends");
    assert!(!alive, "the child has ended by itself");
    acknowledged
}

/// The program of the child; as a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = embedded::open(Path::new(&directory)).await.expect("the store opens");
    let begin = store.current_revision().await.expect("a revision");
    let write = |writer: usize| {
        let store = store.clone();
        async move {
            for number in 0_u64.. {
                let key = format!("/{begin}/{writer}/{number}");
                let commit = Commit::create(key.clone(), vec![b'x'; 500]);
                let revision = store.commit(commit).await.expect("it is written");
                let line = format!("{ACKNOWLEDGED} {key} {revision} .\n");
                std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
            }
        }
    };
    join_all((0..WRITERS).map(write)).await;
}
