//! Printer columns: what `kubectl get` shows of an object.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::time;

/// One column, as in a CustomResourceDefinition's `additionalPrinterColumns`. Columns of `priority` above 0 show with
/// `-o wide` only.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub type_: String,
    pub description: String,
    pub priority: i32,
    path: JsonPath,
}

impl Column {
    /// A column of the values at `path`.
    ///
    /// # Panics
    /// If the path is not one; columns are written in code.
    pub fn new(name: &str, type_: &str, path: &str, priority: i32) -> Self {
        Self::parse(name, type_, path, priority).expect("a column's path is written in code")
    }

    /// A column of the values at a path that comes from elsewhere.
    ///
    /// # Errors
    /// Where the path can't be understood.
    pub fn parse(name: &str, type_: &str, path: &str, priority: i32) -> Result<Self, String> {
        let path = JsonPath::parse(path)?;
        Ok(Column {
            name: name.into(),
            type_: type_.into(),
            description: String::new(),
            priority,
            path,
        })
    }

    /// The age of the object.
    pub fn age() -> Self {
        Column::new("Age", "date", ".metadata.creationTimestamp", 0)
    }
}

/// The `columnDefinitions` of a table: the name and then `columns`.
pub fn column_definitions(columns: &[Column]) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    });
    let others = columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.type_, "format": "",
            "description": column.description, "priority": column.priority,
        })
    });
    std::iter::once(name).chain(others).collect()
}

/// The cells of one object after its name. Dates become ages, many values a list, a missing value an empty cell.
pub fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    columns.iter().map(|column| cell(column, object, now)).collect()
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.find(object);
    let Some(first) = found.first() else {
        return match column.type_.as_str() {
            "date" => json!("<unknown>"),
            "string" => json!(""),
            _ => Value::Null,
        };
    };
    match column.type_.as_str() {
        "date" => match first.as_str().and_then(time::parse) {
            Some(then) => json!(time::human_age(now.as_second() - then.as_second())),
            None => json!("<unknown>"),
        },
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        _ => {
            let texts: Vec<String> = found.iter().map(|value| text(value)).collect();
            json!(texts.join(","))
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_filled_by_type() {
        let now: Timestamp = "2024-03-21T00:10:00Z".parse().unwrap();
        let object = json!({
            "metadata": {"creationTimestamp": "2024-03-21T00:00:00Z"},
            "spec": {"replicas": 3, "names": ["a", "b"]},
        });
        let columns = [
            Column::new("Replicas", "integer", ".spec.replicas", 0),
            Column::new("Names", "string", ".spec.names[*]", 0),
            Column::new("Ready", "string", ".status.ready", 0),
            Column::age(),
        ];
        assert_eq!(
            cells(&columns, &object, now),
            [json!(3), json!("a,b"), json!(""), json!("10m")]
        );
    }
}
