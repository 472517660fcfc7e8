//! The JSON paths of printer columns: `.spec.x`, `['a.b']`, `[0]`, `[-1]`, `[0:2]`, `[*]`, `[?(@.type=='Ready')]`,
//! `[?(@.type!='Ready')]`, `[?(@.reason)]`.

use serde_json::Value;

/// One step down the tree.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Where {
        field: Vec<String>,
        test: Test,
    },
}

/// What a filter asks of a field.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Equal(String),
    NotEqual(String),
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
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::Index(index) => from_start(*index, items.len())
                .and_then(|index| items.get(index))
                .into_iter()
                .collect(),
            Step::Slice(start, end) => {
                let start = start.map_or(Some(0), |start| from_start(start, items.len()));
                let end = end.map_or(Some(items.len()), |end| from_start(end, items.len()));
                let range = start.zip(end).map(|(start, end)| start..end);
                range.and_then(|range| items.get(range)).unwrap_or_default().iter().collect()
            }
            Step::All => match value {
                Value::Object(map) => map.values().collect(),
                _ => items.iter().collect(),
            },
            Step::Where { field, test } => {
                let holds = |item: &&Value| {
                    let found = field.iter().try_fold(*item, |item, name| item.get(name));
                    found.is_some_and(|found| test.holds(found))
                };
                items.iter().filter(holds).collect()
            }
        }
    }
}

fn from_start(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index.checked_add(length)? } else { index }).ok()
}

impl Test {
    fn holds(&self, found: &Value) -> bool {
        let is = |wanted: &str| match found {
            Value::String(text) => text == wanted,
            Value::Bool(value) => wanted == if *value { "true" } else { "false" },
            Value::Number(number) => number.to_string() == *wanted,
            _ => false,
        };
        match self {
            Test::Exists => true,
            Test::Equal(wanted) => is(wanted),
            Test::NotEqual(wanted) => !is(wanted),
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
    ['\'', '"'].into_iter().find_map(|quote| {
        text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote))
    })
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return filter(condition);
    }
    match text.split_once(':') {
        Some((start, end)) => Some(Step::Slice(bound(start)?, bound(end)?)),
        None => text.parse().ok().map(Step::Index),
    }
}

/// An end of a slice, which may be left out.
fn bound(text: &str) -> Option<Option<i64>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

fn filter(condition: &str) -> Option<Step> {
    let (path, test) = if let Some((path, value)) = condition.split_once("!=") {
        (path, Test::NotEqual(literal(value)?))
    } else if let Some((path, value)) = condition.split_once("==") {
        (path, Test::Equal(literal(value)?))
    } else {
        (condition, Test::Exists)
    };
    let field: Vec<String> =
        path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
    let plain = |name: &String| {
        !name.is_empty()
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/'))
    };
    field.iter().all(plain).then_some(Step::Where { field, test })
}

/// A quoted text, or a number or truth value as it is written.
fn literal(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = |text: &&str| {
        !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "+-.".contains(c))
    };
    unquoted(text).or_else(|| Some(text).filter(bare)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectl_takes_them() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "age": 1},
                {"type": "Offline", "status": "False", "ok": true},
            ]},
            "spec": {"ports": [{"port": 80}, {"port": 443}, {"port": 8080}], "none": null, "text": "t"},
        });
        for (path, wanted) in [
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".status.conditions[?(@.type==\"Offline\")].status", json!(["False"])),
            (".status.conditions[?( @.type == 'Ready' )].status", json!(["True"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".status.conditions[?(@.ok==true)].type", json!(["Offline"])),
            (".status.conditions[?(@.age==1)].type", json!(["Ready"])),
            (".status.conditions[?(@.age)].type", json!(["Ready"])),
            (".spec.ports[*].port", json!([80, 443, 8080])),
            (".spec.ports[1].port", json!([443])),
            (".spec.ports[-1].port", json!([8080])),
            (".spec.ports[-1:].port", json!([8080])),
            (".spec.ports[0:2].port", json!([80, 443])),
            (".spec.ports[:1].port", json!([80])),
            (".spec.ports[2:1].port", json!([])),
            (".spec.ports[1:9].port", json!([])),
            (".spec.ports[-9].port", json!([])),
            (".spec.ports[9].port", json!([])),
            ("{.spec.ports[0].port}", json!([80])),
            ("$.spec.text", json!(["t"])),
            (".spec.text.deeper", json!([])),
            (".spec.text[0]", json!([])),
            (".spec.none", json!([null])),
            (".metadata.annotations['a.b/c']", json!(["x"])),
            (r".metadata.annotations.a\.b/c", json!(["x"])),
            (".metadata.*", json!([{"a.b/c": "x"}])),
            (".spec.nothing.here", json!([])),
        ] {
            let found: Vec<Value> =
                JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), wanted, "{path}");
        }
        for path in [
            "spec",
            ".a[",
            ".a[x]",
            "..a",
            ".a[]",
            ".a[ 0 ]",
            "]",
            ".a['",
            ".a[?(",
            ".a[?(@.b='c')]",
            ".a[?(@.b=='c'||@.b=='d')]",
            ".a[?(b)]",
            ".a[0:x]",
            ".a[0:1:2]",
            ".a[99999999999999999999]",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(text in "[-.a-c\\[\\]0-9:*?()@=!'\"{}$\\\\ é]{0,24}") {
            if let Ok(path) = JsonPath::parse(&text) {
                let object = json!({"a": [{"b": 1}, [], "x"], "b": {"c": [1, 2]}, "": {"": 0}});
                prop_assert!(path.find(&object).len() < 100);
            }
        }
    }
}
