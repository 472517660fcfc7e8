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
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            requirements.push(
                requirement(term).ok_or_else(|| {
                    format!("invalid selector: '{text}'; can't understand '{term}'")
                })?,
            );
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

fn requirement(term: &str) -> Option<Requirement> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else {
        (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?)
    };
    if field.is_empty() {
        return None;
    }
    Some(Requirement { field: field.to_owned(), equal, value: unescape(value)? })
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_with_their_escapes() {
        let selector = Selector::parse(r"metadata.name=a\,b,type!=x,z==").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(selector.matches(|field| match field {
            "metadata.name" => Some("a,b"),
            "type" => Some("y"),
            _ => None,
        }));
        for wrong in ["a", "=b", r"a=b\", "a=b=c", r"a=\x"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Selector::parse("").unwrap().requirements().is_empty());
    }
}
