//! Errors about fields, in Kubernetes' words (`apimachinery/pkg/util/validation/field`).

use std::fmt;

use serde_json::Value;

/// The path of a field: `spec.containers[0].image`, `metadata.labels[key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A field at the top of the object.
    pub fn root(name: &str) -> Self {
        Path(name.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Path(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    Required,
    Forbidden,
    NotSupported,
    Duplicate,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl Kind {
    /// The machine-readable reason of a cause.
    pub fn reason(self) -> &'static str {
        match self {
            Kind::Invalid => "FieldValueInvalid",
            Kind::Required => "FieldValueRequired",
            Kind::Forbidden => "FieldValueForbidden",
            Kind::NotSupported => "FieldValueNotSupported",
            Kind::Duplicate => "FieldValueDuplicate",
            Kind::NotFound => "FieldValueNotFound",
            Kind::TooLong => "FieldValueTooLong",
            Kind::TooMany => "FieldValueTooMany",
            Kind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::Invalid | Kind::TypeInvalid => "Invalid value",
            Kind::Required => "Required value",
            Kind::Forbidden => "Forbidden",
            Kind::NotSupported => "Unsupported value",
            Kind::Duplicate => "Duplicate value",
            Kind::NotFound => "Not found",
            Kind::TooLong => "Too long",
            Kind::TooMany => "Too many",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Kind::Required | Kind::Forbidden | Kind::TooLong)
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: Kind,
    pub path: String,
    pub value: Value,
    pub detail: String,
}

impl Error {
    fn new(kind: Kind, path: &Path, value: Value, detail: impl Into<String>) -> Self {
        Error { kind, path: path.to_string(), value, detail: detail.into() }
    }

    pub fn invalid(path: &Path, value: Value, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, path, value, detail)
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(Kind::Required, path, Value::Null, detail)
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, path, Value::Null, detail)
    }

    pub fn not_supported(path: &Path, value: Value, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        Self::new(
            Kind::NotSupported,
            path,
            value,
            format!("supported values: {}", quoted.join(", ")),
        )
    }

    pub fn duplicate(path: &Path, value: Value) -> Self {
        Self::new(Kind::Duplicate, path, value, "")
    }

    pub fn not_found(path: &Path, value: Value) -> Self {
        Self::new(Kind::NotFound, path, value, "")
    }

    pub fn too_long(path: &Path, value: Value, max_bytes: usize) -> Self {
        Self::new(Kind::TooLong, path, value, format!("may not be more than {max_bytes} bytes"))
    }

    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self::new(
            Kind::TooMany,
            path,
            Value::from(actual),
            format!("must have at most {max} items"),
        )
    }

    pub fn type_invalid(path: &Path, value: Value, detail: impl Into<String>) -> Self {
        Self::new(Kind::TypeInvalid, path, value, detail)
    }

    /// The text without the path: what stands in a cause's `message`.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if self.kind.shows_value() {
            text += &format!(": {}", self.value);
        }
        if !self.detail.is_empty() {
            text += ": ";
            text += &self.detail;
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.body())
        } else {
            write!(f, "{}: {}", self.path, self.body())
        }
    }
}

/// One text of several errors, each told once: `a`, or `[a, b]`.
pub fn aggregate(errors: &[Error]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_as_kubernetes_writes_them() {
        let path = Path::root("spec").child("ports").index(0).child("name");
        for (error, text) in [
            (
                Error::invalid(&path, json!("x"), "bad"),
                r#"spec.ports[0].name: Invalid value: "x": bad"#,
            ),
            (Error::required(&path, ""), "spec.ports[0].name: Required value"),
            (Error::forbidden(&path, "no"), "spec.ports[0].name: Forbidden: no"),
            (
                Error::not_supported(&path, json!("c"), &["a", "b"]),
                r#"spec.ports[0].name: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (Error::duplicate(&path, json!(80)), "spec.ports[0].name: Duplicate value: 80"),
            (
                Error::too_long(&path, json!("x"), 63),
                "spec.ports[0].name: Too long: may not be more than 63 bytes",
            ),
            (
                Error::too_many(&path, 5, 3),
                "spec.ports[0].name: Too many: 5: must have at most 3 items",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
