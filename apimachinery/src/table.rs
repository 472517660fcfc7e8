//! Printer columns: what `kubectl get` shows of an object.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

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

/// The parts of an object that columns look at. An object is mostly other parts, and a table has many objects.
#[derive(Debug, Default)]
pub struct Parts {
    whole: bool,
    fields: BTreeMap<String, Parts>,
}

impl Parts {
    /// What `columns` look at.
    pub fn of(columns: &[Column]) -> Self {
        let mut parts = Parts::default();
        for column in columns {
            let mut part = &mut parts;
            for field in column.path.leading_fields() {
                part = part.fields.entry(field.to_owned()).or_default();
            }
            part.whole = true;
        }
        parts
    }

    /// Reads these parts of an object, and no other. They are null if the text is no JSON.
    pub fn read(&self, json: &[u8]) -> Value {
        self.deserialize(&mut serde_json::Deserializer::from_slice(json)).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for &Parts {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.whole {
            return Value::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Below what is no object there are no fields.
impl<'de> Visitor<'de> for &Parts {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            match self.fields.get(&*key) {
                Some(part) => {
                    found.insert(key.into_owned(), access.next_value_seed(part)?);
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }
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
        "date" => match first.as_str().map(time::parse) {
            Some(Some(then)) => json!(time::human_age(now.as_second() - then.as_second())),
            Some(None) => json!("<invalid>"),
            None => json!("<unknown>"),
        },
        "integer" => {
            let whole = || first.as_f64().map(|number| number as i64);
            first.as_i64().or_else(whole).map_or(Value::Null, Value::from)
        }
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
            "spec": {"replicas": 3, "share": 1.5, "names": ["a", "b"], "paused": false, "map": {"k": 1}, "none": null},
        });
        for (type_, path, wanted) in [
            ("integer", ".spec.replicas", json!(3)),
            ("integer", ".spec.share", json!(1)),
            ("integer", ".spec.paused", Value::Null),
            ("integer", ".spec.missing", Value::Null),
            ("number", ".spec.share", json!(1.5)),
            ("number", ".spec.replicas", json!(3.0)),
            ("boolean", ".spec.paused", json!(false)),
            ("boolean", ".spec.replicas", Value::Null),
            ("string", ".spec.names[*]", json!("a,b")),
            ("string", ".spec.replicas", json!("3")),
            ("string", ".spec.map", json!(r#"{"k":1}"#)),
            ("string", ".spec.none", json!("")),
            ("string", ".spec.missing", json!("")),
            ("date", ".metadata.creationTimestamp", json!("10m")),
            ("date", ".spec.names[0]", json!("<invalid>")),
            ("date", ".spec.replicas", json!("<unknown>")),
            ("date", ".spec.missing", json!("<unknown>")),
        ] {
            let columns = [Column::new("X", type_, path, 0)];
            assert_eq!(cells(&columns, &object, now), [wanted], "{type_} {path}");
        }
    }

    #[test]
    fn a_head_names_the_object_before_the_columns() {
        let head = column_definitions(&[Column::new("Ready", "string", ".status.ready", 1)]);
        assert_eq!(head[0]["name"], "Name");
        assert_eq!(head[0]["format"], "name");
        assert_eq!((&head[1]["name"], &head[1]["priority"]), (&json!("Ready"), &json!(1)));
        assert!(Column::parse("X", "string", "no path", 0).is_err());
    }

    #[test]
    fn only_the_parts_that_columns_look_at_are_read() {
        let object = json!({
            "metadata": {"creationTimestamp": "2024-03-21T00:00:00Z", "name": "a"},
            "spec": {"names": ["a", "b"], "replicas": 3, "template": {"spec": {}}},
            "status": "none", "data": [1],
        });
        let columns = [
            Column::new("Names", "string", ".spec.names[*]", 0),
            Column::new("Ready", "string", ".status.ready", 0),
            Column::age(),
        ];
        let read = Parts::of(&columns).read(object.to_string().as_bytes());
        let wanted = json!({
            "metadata": {"creationTimestamp": "2024-03-21T00:00:00Z"},
            "spec": {"names": ["a", "b"]},
            "status": null,
        });
        assert_eq!(read, wanted);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(cells(&columns, &read, now), cells(&columns, &object, now));
        assert_eq!(Parts::of(&columns).read(b"{"), Value::Null);
    }
}
