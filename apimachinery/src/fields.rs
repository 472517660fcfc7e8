//! Field selectors: `metadata.name=web,spec.nodeName!=n1`, with `\` before a comma, an equals sign or itself.

/// One field and what it must, or must not, be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// A conjunction of requirements; without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// # Errors
    /// What can't be understood, in words for a client.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        // Kubernetes takes them in order as well, so that of several errors it is the same one that is told.
        let mut terms = split_unescaped(text);
        terms.sort_unstable();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let (field, equal, value) = split_term(term)
                .filter(|(field, ..)| !field.is_empty())
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            requirements.push(Requirement { field: field.into(), equal, value: unescape(value)? });
        }
        Ok(Selector { requirements })
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The value that `field` is pinned to.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether an object whose fields `value` looks up meets every requirement. A missing field is empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (value(&r.field).unwrap_or("") == r.value) == r.equal)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// The field, whether it is to be equal, and the value as it is written.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    (0..term.len()).filter(|&at| term.is_char_boundary(at)).find_map(|at| {
        let (field, rest) = term.split_at(at);
        let equal = || rest.strip_prefix("==").or_else(|| rest.strip_prefix('='));
        rest.strip_prefix("!=")
            .map(|value| (field, false, value))
            .or_else(|| equal().map(|value| (field, true, value)))
    })
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let other = other.map_or(String::new(), String::from);
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    ));
                }
            },
            // Kubernetes writes the number of the character.
            '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_are_read_with_their_escapes() {
        let selector = Selector::parse(r"metadata.name=a\,b,type!=x,z==").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert_eq!(selector.exact("type"), None);
        assert!(selector.matches(|field| match field {
            "metadata.name" => Some("a,b"),
            "type" => Some("y"),
            _ => None,
        }));
        assert!(!selector.matches(|_| Some("x")));
        assert!(Selector::parse(",,").unwrap().requirements().is_empty());
    }

    /// The right-hand side is what `k8s.io/apimachinery/pkg/fields` says of the left.
    #[test]
    fn selectors_are_refused_in_the_words_of_kubernetes() {
        for (selector, error) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("b,a", "invalid selector: 'b,a'; can't understand 'a'"),
            ("a!b", "invalid selector: 'a!b'; can't understand 'a!b'"),
            ("=b", "invalid selector: '=b'; can't understand '=b'"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a===b", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(Selector::parse(selector).unwrap_err(), error, "{selector}");
        }
    }

    proptest! {
        #[test]
        fn any_value_comes_through_its_escapes(value in ".{0,16}", equal in any::<bool>()) {
            let escaped: String =
                value.chars().flat_map(|c| matches!(c, '\\' | ',' | '=').then_some('\\').into_iter().chain([c])).collect();
            let selector =
                Selector::parse(&format!("x=1,f{}{escaped}", if equal { "=" } else { "!=" })).unwrap();
            let wanted = Requirement { field: "f".into(), equal, value };
            prop_assert!(selector.requirements().contains(&wanted), "{:?}", selector);
        }

        #[test]
        fn no_text_panics(text in "[ab=!,\\\\.é]{0,16}") {
            let _read = Selector::parse(&text);
        }
    }
}
