//! The JSON paths of printer columns: `.spec.x`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=='Ready')]`.

use serde_json::Value;

/// One step down the tree.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where { field: Vec<String>, value: String },
}

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// # Errors
    /// Where the path can't be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |rest: &str| format!("invalid JSON path {text:?} at {rest:?}");
        let mut steps = Vec::new();
        let mut rest =
            text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| wrong(rest))?;
                steps.push(bracket(&after[..end]).ok_or_else(|| wrong(rest))?);
                rest = &after[end + 1..];
            } else if let Some(after) = rest.strip_prefix('.') {
                let mut name = String::new();
                let mut chars = after.char_indices();
                let mut end = after.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '\\' => name.extend(chars.next().map(|(_, c)| c)),
                        '.' | '[' => {
                            end = at;
                            break;
                        }
                        c => name.push(c),
                    }
                }
                if name.is_empty() {
                    return Err(wrong(rest));
                }
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                rest = &after[end..];
            } else {
                return Err(wrong(rest));
            }
        }
        Ok(JsonPath(steps))
    }

    /// The fields that the path begins with, as far as they are named: all that it leads to is below them.
    pub fn leading_fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Every value that the path leads to, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.down(value)).collect();
        }
        found
    }
}

impl Step {
    fn down<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::Index(index) => value.get(index).into_iter().collect(),
            Step::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Step::Where { field, value: wanted } => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| {
                    let found = field.iter().try_fold(*item, |item, name| item.get(name));
                    found.is_some_and(|found| match found {
                        Value::String(text) => text == wanted,
                        Value::Bool(value) => wanted == if *value { "true" } else { "false" },
                        Value::Number(number) => number.to_string() == *wanted,
                        _ => false,
                    })
                })
                .collect(),
        }
    }
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let text = text.trim();
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (path, value) = condition.split_once("==")?;
        let field = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let value = unquoted(value).unwrap_or_else(|| value.trim()).to_owned();
        return Some(Step::Where { field, value });
    }
    text.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectl_takes_them() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Offline", "status": "False"}]},
            "spec": {"ports": [{"port": 80}, {"port": 443}]},
        });
        for (path, wanted) in [
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".status.conditions[?(@.type==\"Offline\")].status", json!(["False"])),
            (".spec.ports[*].port", json!([80, 443])),
            (".spec.ports[1].port", json!([443])),
            (".metadata.annotations['a.b/c']", json!(["x"])),
            (r".metadata.annotations.a\.b/c", json!(["x"])),
            (".spec.nothing.here", json!([])),
        ] {
            let found: Vec<Value> =
                JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), wanted, "{path}");
        }
        for path in ["spec", ".a[", ".a[x]", "..a"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
