//! What may be a name (`apimachinery/pkg/util/validation`). Each check returns what is wrong, in Kubernetes' words.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// The longest base that `generateName` keeps: a name of 63 bytes without its suffix.
const GENERATED_BASE: usize = 58;
/// The letters of generated names: no vowels and no digits that look like letters, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

fn is_label(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(&a), Some(&b)) if edge(a) && edge(b))
        && bytes.iter().all(|&b| edge(b) || b == b'-')
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// RFC 1123 label: at most 63 lower-case letters, digits and inner dashes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(too_long(LABEL_MAX));
    }
    if is_label(text) {
        return problems;
    }
    problems.push(if text.split('.').all(is_label) {
        "must not contain dots".into()
    } else {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
         end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .into()
    });
    problems
}

/// RFC 1123 subdomain: labels with dots between, at most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        problems.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label) {
        problems.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    problems
}

/// RFC 1035 label: as [`dns1123_label`], but starting with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(too_long(LABEL_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    problems
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A label or annotation key: an optional DNS prefix and a slash, then a name part of at most 63 bytes.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            problems.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            let prefix = dns1123_subdomain(prefix);
            problems.extend(prefix.iter().map(|problem| format!("prefix part {problem}")));
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        problems.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_name_part(name) {
        problems.push(format!("name part {QUALIFIED_NAME}"));
    }
    problems
}

/// A label's value: empty, or a name part of at most 63 bytes.
pub fn label_value(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_name_part(text) {
        problems.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .into(),
        );
    }
    problems
}

/// What may stand in a path at all, for names that follow no DNS rule (roles).
pub fn path_segment(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if matches!(text, "." | "..") {
        problems.push(format!("may not be '{text}'"));
    }
    for bad in ['/', '%'] {
        if text.contains(bad) {
            problems.push(format!("may not contain '{bad}'"));
        }
    }
    problems
}

/// A name of `base` and five random letters. `random` gives at least five bytes.
pub fn generate_name(base: &str, random: &[u8]) -> String {
    let mut end = base.len().min(GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let letters = random
        .iter()
        .take(SUFFIX)
        .map(|&byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char);
    base[..end].chars().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_told_apart_as_kubernetes_does() {
        let long = "a".repeat(64);
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        let too_long = format!("{longest}a");
        for (text, label, subdomain, rfc1035) in [
            ("web", true, true, true),
            ("1web", true, true, false),
            ("web.example.com", false, true, false),
            ("Web", false, false, false),
            ("-web", false, false, false),
            ("web-", false, false, false),
            ("web\n", false, false, false),
            ("", false, false, false),
            (long.as_str(), false, true, false),
            (longest.as_str(), false, true, false),
            (too_long.as_str(), false, false, false),
            ("a..b", false, false, false),
            ("wéb", false, false, false),
        ] {
            assert_eq!(dns1123_label(text).is_empty(), label, "{text}");
            assert_eq!(dns1123_subdomain(text).is_empty(), subdomain, "{text}");
            assert_eq!(dns1035_label(text).is_empty(), rfc1035, "{text}");
        }
    }

    #[test]
    fn names_are_refused_in_the_words_of_kubernetes() {
        let long = "a".repeat(64);
        let key = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                   character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                   '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        for (told, wanted) in [
            (dns1123_label(&long), vec!["must be no more than 63 bytes".to_owned()]),
            (dns1123_label("a.b"), vec!["must not contain dots".to_owned()]),
            (dns1123_label("A"), vec![
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                 validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".to_owned(),
            ]),
            (dns1035_label("1"), vec![
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                 alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
                 used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".to_owned(),
            ]),
            (qualified_name("a/b/c"), vec![format!(
                "a valid label key {key} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )]),
            (qualified_name("/a"), vec!["prefix part must be non-empty".to_owned()]),
            (qualified_name("a/"), vec!["name part must be non-empty".to_owned(), format!("name part {key}")]),
            (qualified_name(&long), vec!["name part must be no more than 63 bytes".to_owned()]),
            (path_segment(".."), vec!["may not be '..'".to_owned()]),
            (path_segment("a/b%"), vec!["may not contain '/'".to_owned(), "may not contain '%'".to_owned()]),
        ] {
            assert_eq!(told, wanted);
        }
    }

    #[test]
    fn a_label_key_has_at_most_one_slash() {
        for (text, valid) in [
            ("app", true),
            ("example.com/App_1", true),
            ("Example.com/a", false),
            ("a/b/c", false),
            ("/x", false),
            ("x/", false),
            ("a b", false),
        ] {
            assert_eq!(qualified_name(text).is_empty(), valid, "{text}");
        }
    }

    #[test]
    fn a_generated_name_keeps_room_for_its_suffix() {
        assert_eq!(generate_name("web-", &[0, 1, 2, 26, 27]), "web-bcd9b");
        assert_eq!(generate_name(&"a".repeat(80), &[0; 5]).len(), 63);
    }

    proptest! {
        #[test]
        fn a_generated_name_is_a_name_where_its_base_is(base in "[a-z0-9]([-a-z0-9]{0,70})?", random in any::<[u8; 8]>()) {
            prop_assert_eq!(dns1123_label(&generate_name(&base, &random)), Vec::<String>::new());
        }

        #[test]
        fn no_text_panics(text in ".{0,80}", random in any::<[u8; 5]>()) {
            let label = dns1123_label(&text).is_empty();
            prop_assert!(!label || (dns1123_subdomain(&text).is_empty() && label_value(&text).is_empty()));
            prop_assert!(!label || (qualified_name(&text).is_empty() && path_segment(&text).is_empty()));
            prop_assert!(!dns1035_label(&text).is_empty() || label);
            prop_assert!(generate_name(&text, &random).len() <= 63);
        }
    }
}
