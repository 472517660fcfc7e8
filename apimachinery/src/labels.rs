//! Label selectors: the text form of queries and the `LabelSelector` form of objects.

use std::fmt;

use serde_json::Value;

use crate::names;

/// What a requirement asks of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A conjunction of requirements; without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// What is wrong, in words for a client.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim() };
        let mut requirements = Vec::new();
        while !parser.rest.is_empty() {
            requirements.push(
                parser
                    .requirement()
                    .map_err(|why| format!("unable to parse requirement: {why}"))?,
            );
            parser.skip_space();
            if parser.rest.is_empty() {
                break;
            }
            parser.expect(',').map_err(|why| format!("unable to parse requirement: {why}"))?;
            parser.skip_space();
            if parser.rest.is_empty() {
                return Err(
                    "unable to parse requirement: found '', expected: identifier after ','".into(),
                );
            }
        }
        Ok(Selector { requirements })
    }

    /// Reads the `LabelSelector` of an object: `{matchLabels, matchExpressions}`. An empty one matches everything.
    ///
    /// # Errors
    /// What is wrong with an expression.
    pub fn from_label_selector(selector: &Value) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            requirements.push(Requirement::In(
                valid_key(key)?,
                vec![valid_value(value.as_str().unwrap_or(""))?],
            ));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = valid_key(expression["key"].as_str().unwrap_or(""))?;
            let values: Vec<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|value| valid_value(value.as_str().unwrap_or("")))
                .collect::<Result<_, _>>()?;
            let operator = expression["operator"].as_str().unwrap_or("");
            requirements.push(match (operator, values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => {
                    return Err("for 'in', 'notin' operators, values set can't be empty".into());
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err("values set must be empty for exists and does not exist".into());
                }
                _ => return Err(format!("{operator:?} is not a valid label selector operator")),
            });
        }
        Ok(Selector { requirements })
    }

    /// Whether there is nothing to ask.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object whose labels `label` looks up meets every requirement.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|v| v == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::DoesNotExist(key) => label(key).is_none(),
            Requirement::Greater(key, bound) => {
                number(label(key)).is_some_and(|value| value > *bound)
            }
            Requirement::Less(key, bound) => number(label(key)).is_some_and(|value| value < *bound),
        })
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", values[0])?
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Requirement::NotIn(key, values) if values.len() == 1 => {
                    write!(f, "{key}!={}", values[0])?
                }
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::DoesNotExist(key) => write!(f, "!{key}")?,
                Requirement::Greater(key, bound) => write!(f, "{key}>{bound}")?,
                Requirement::Less(key, bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        self.skip_space();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(format!(
                "found '{}', expected: '{wanted}'",
                self.rest.chars().next().map_or(String::new(), String::from)
            )),
        }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || "=!<>(),".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix('!') {
            self.rest = rest;
            return Ok(Requirement::DoesNotExist(valid_key(self.word())?));
        }
        let key = valid_key(self.word())?;
        self.skip_space();
        for (operator, negated) in [("==", false), ("!=", true), ("=", false)] {
            if let Some(rest) = self.rest.strip_prefix(operator) {
                self.rest = rest;
                let values = vec![valid_value(self.word())?];
                return Ok(if negated {
                    Requirement::NotIn(key, values)
                } else {
                    Requirement::In(key, values)
                });
            }
        }
        for (operator, greater) in [('>', true), ('<', false)] {
            if let Some(rest) = self.rest.strip_prefix(operator) {
                self.rest = rest;
                let bound = self.word();
                let bound = bound.parse().map_err(|_| {
                    format!("for 'Gt', 'Lt' operators, the value must be an integer: {bound:?}")
                })?;
                return Ok(if greater {
                    Requirement::Greater(key, bound)
                } else {
                    Requirement::Less(key, bound)
                });
            }
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement::Exists(key));
        }
        let operator = self.word();
        if !matches!(operator, "in" | "notin") {
            return Err(format!("found '{operator}', expected: in, notin, =, ==, !=, gt, lt"));
        }
        self.expect('(')?;
        let mut values = Vec::new();
        loop {
            values.push(valid_value(self.word())?);
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
            } else {
                break;
            }
        }
        self.expect(')')?;
        Ok(if operator == "in" {
            Requirement::In(key, values)
        } else {
            Requirement::NotIn(key, values)
        })
    }
}

fn valid_key(key: &str) -> Result<String, String> {
    match names::qualified_name(key).first() {
        None => Ok(key.to_owned()),
        Some(problem) => Err(format!("key: Invalid value: {key:?}: {problem}")),
    }
}

fn valid_value(value: &str) -> Result<String, String> {
    match names::label_value(value).first() {
        None => Ok(value.to_owned()),
        Some(problem) => Err(format!("values: Invalid value: {value:?}: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(selector: &Selector, labels: &[(&str, &'static str)]) -> bool {
        selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, value)| *value))
    }

    #[test]
    fn requirements_match_as_kubernetes_says() {
        let labels = [("app", "web"), ("tier", ""), ("rank", "5")];
        for (selector, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=", true),
            ("app!=web", false),
            ("zone!=a", true),
            ("app in (db, web)", true),
            ("app notin (db)", true),
            ("zone notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!zone", true),
            ("rank>4", true),
            ("rank<5", false),
            ("tier in ()", true),
            ("app=web, !zone", true),
        ] {
            assert_eq!(matches(&Selector::parse(selector).unwrap(), &labels), wanted, "{selector}");
        }
        for selector in ["a in (", "a b", "=x", "a=b,", ",", "a>x", "a=b c", "a=b/c", "(a)"] {
            assert!(Selector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn an_object_selector_says_the_same() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a", "b"]}, {"key": "x", "operator": "Exists"}],
        });
        assert_eq!(
            Selector::from_label_selector(&selector).unwrap().to_string(),
            "app=web,zone notin (a,b),x"
        );
        for wrong in [
            json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}),
        ] {
            assert!(Selector::from_label_selector(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z=!,() <>./-]{0,24}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(&Selector::parse(&selector.to_string()).unwrap(), &selector);
            }
        }
    }
}
