//! Label selectors: the text form of queries and the `LabelSelector` form of objects.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Value, json};

use crate::field::{self, Path};
use crate::names;

/// A label's key and what is asked of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

/// A conjunction of requirements; without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Ordered by key.
    requirements: Vec<Requirement>,
}

impl Selector {
    fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements }
    }

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// What is wrong, in words for a client.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::requirements(text).map(Self::new)
    }

    /// Reads the `LabelSelector` of an object: `{matchLabels, matchExpressions}`. An empty one matches everything.
    ///
    /// # Errors
    /// What is wrong with an expression. A selector that is malformed is refused as well: to leave out what can't be
    /// read would select more than was asked for.
    pub fn from_label_selector(selector: &Value) -> Result<Self, String> {
        if !(selector.is_object() || selector.is_null()) {
            return Err("a label selector is an object".into());
        }
        let mut requirements = Vec::new();
        match &selector["matchLabels"] {
            Value::Null => {}
            Value::Object(labels) => {
                for (key, value) in labels {
                    requirements.push(Requirement::new(key, Operator::In, vec![text(value)?])?);
                }
            }
            _ => return Err("matchLabels is an object".into()),
        }
        for expression in list(&selector["matchExpressions"], "matchExpressions")? {
            let operator = match expression["operator"].as_str().unwrap_or("") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = list(&expression["values"], "values")?
                .iter()
                .map(text)
                .collect::<Result<Vec<_>, _>>()?;
            let key = expression["key"].as_str().unwrap_or("");
            requirements.push(Requirement::new(key, operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// Whether there is nothing to ask.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object whose labels `label` looks up meets every requirement.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.test.holds(label(&requirement.key)))
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("a label's value is a string, not {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(format!("{name} is a list")),
    }
}

impl Requirement {
    fn new(key: &str, operator: Operator, mut values: Vec<&str>) -> Result<Self, String> {
        values.sort_unstable();
        values.dedup();
        let mut errors = Vec::new();
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            errors.push(field::Error::invalid(&Path::root("key"), json!(key), problems.join("; ")));
        }
        let path = Path::root("values");
        let test = Test::new(operator, &values, &path).map_err(|error| errors.push(error));
        for (index, value) in values.iter().enumerate() {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                let path = path.index(index).key(key);
                errors.push(field::Error::invalid(&path, json!(value), problems.join("; ")));
            }
        }
        match (errors.as_slice(), test) {
            ([], Ok(test)) => Ok(Requirement { key: key.to_owned(), test }),
            _ => Err(field::aggregate(&errors)),
        }
    }
}

impl Test {
    fn new(operator: Operator, values: &[&str], path: &Path) -> Result<Self, field::Error> {
        let wrong = |problem: &str| field::Error::invalid(path, json!(values), problem);
        let owned = || values.iter().map(|value| (*value).to_owned()).collect();
        let bound = || match values {
            [value] => value.parse::<i64>().map_err(|_| {
                let problem = "for 'Gt', 'Lt' operators, the value must be an integer";
                field::Error::invalid(&path.index(0), json!(value), problem)
            }),
            _ => Err(wrong("for 'Gt', 'Lt' operators, exactly one value is required")),
        };
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Err(wrong("for 'in', 'notin' operators, values set can't be empty"))
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Err(wrong("values set must be empty for exists and does not exist"))
            }
            Operator::In => Ok(Test::In(owned())),
            Operator::NotIn => Ok(Test::NotIn(owned())),
            Operator::Exists => Ok(Test::Exists),
            Operator::DoesNotExist => Ok(Test::DoesNotExist),
            Operator::Greater => bound().map(Test::Greater),
            Operator::Less => bound().map(Test::Less),
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value?.parse::<i64>().ok();
        let among =
            |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        match self {
            Test::In(values) => among(values),
            Test::NotIn(values) => !among(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Greater(bound) => number().is_some_and(|number| number > *bound),
            Test::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::DoesNotExist => write!(f, "!{key}")?,
                Test::Greater(bound) => write!(f, "{key}>{bound}")?,
                Test::Less(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}
