//! The query parameters of a request, decoded as Kubernetes decodes them.

use std::num::{IntErrorKind, ParseIntError};

use kubefed_apimachinery::field;
use kubefed_apimachinery::gvk::GroupKind;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{fields, labels};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The parameters in the order in which they came.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or("").as_bytes());
        Query(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Absent, `0` and `false` are false; anything else, also the empty value, is true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    /// The resource version that the client knows. Unset and empty are the same.
    ///
    /// # Errors
    /// 400 if it is none. (Kubernetes answers a watch with a 500.)
    pub(crate) fn resource_version(&self) -> Result<Option<u64>, Status> {
        let Some(text) = self.get("resourceVersion").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error| {
            let path = field::Path::root("resourceVersion");
            let error =
                field::Error::invalid(&path, json!(text), no_number("ParseUint", text, &error));
            Status::bad_request(format!("invalid resource version: {error}"))
        })
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|error| Status::bad_request(no_number("ParseInt", text, &error)))
    }
}

/// As Go says it.
fn no_number(function: &str, text: &str, error: &ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

fn is_true(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// How strictly unknown and duplicate fields are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub field_manager: Option<String>,
    pub force: Option<bool>,
}

/// RFC-less bound of Kubernetes: a field manager's name is at most this many bytes.
pub(crate) const FIELD_MANAGER_MAX: usize = 128;

impl WriteOptions {
    /// # Errors
    /// 422 that names the parameter; `kind` is the options kind that the error is said of (`CreateOptions`, …).
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                errors.push(field::Error::not_supported(
                    &field::Path::root("fieldValidation"),
                    json!(other),
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Strict
            }
        };
        let field_manager = query.get("fieldManager").filter(|m| !m.is_empty()).map(str::to_owned);
        if let Some(manager) = &field_manager {
            let path = field::Path::root("fieldManager");
            if manager.len() > FIELD_MANAGER_MAX {
                errors.push(field::Error::too_long(&path, json!(manager), FIELD_MANAGER_MAX));
            }
            if manager.chars().any(char::is_control) {
                errors.push(field::Error::invalid(
                    &path,
                    json!(manager),
                    "should only contain printable characters",
                ));
            }
        }
        options_ok(kind, errors)?;
        let force = query.get("force").map(is_true);
        Ok(WriteOptions { dry_run, field_validation, field_manager, force })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<field::Error>) -> bool {
    let mut dry_run = false;
    for value in values {
        match value {
            "All" => dry_run = true,
            other => errors.push(field::Error::not_supported(
                &field::Path::root("dryRun"),
                json!(other),
                &["All"],
            )),
        }
    }
    dry_run
}

/// An error list over request options as the 422 that Kubernetes answers.
pub(crate) fn options_ok(kind: &str, errors: Vec<field::Error>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind { group: "meta.k8s.io".into(), kind: kind.into() }, "", &errors))
}

/// How the `resourceVersion` of a list is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Unset,
    Exact,
    NotOlderThan,
}

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Options of list, watch and deletecollection.
#[derive(Debug)]
pub(crate) struct ListOptions {
    pub labels: labels::Selector,
    pub fields: fields::Selector,
    pub resource_version: Option<u64>,
    pub version_match: VersionMatch,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// # Errors
    /// 400 for what can't be read, 422 for combinations that have no meaning (`spec` of `internalversion/validation`).
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self, Status> {
        let labels = labels::Selector::parse(query.get("labelSelector").unwrap_or(""))
            .map_err(Status::bad_request)?;
        let fields = fields::Selector::parse(query.get("fieldSelector").unwrap_or(""))
            .map_err(Status::bad_request)?;
        let limit = usize::try_from(query.integer("limit")?.unwrap_or(0)).unwrap_or(0);
        let timeout_seconds =
            query.integer("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|&s| s > 0);
        let continue_token =
            query.get("continue").filter(|token| !token.is_empty()).map(str::to_owned);
        let send_initial_events = query.get("sendInitialEvents").map(is_true);
        let errors = if watch { watch_errors(query) } else { list_errors(query) };
        options_ok("ListOptions", errors)?;
        let resource_version = query.resource_version()?;
        if continue_token.is_some() && resource_version.is_some_and(|rv| rv != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let version_match = match query.get("resourceVersionMatch") {
            Some(EXACT) => VersionMatch::Exact,
            Some(NOT_OLDER_THAN) => VersionMatch::NotOlderThan,
            _ => VersionMatch::Unset,
        };
        Ok(ListOptions {
            labels,
            fields,
            resource_version,
            version_match,
            limit,
            continue_token,
            timeout_seconds,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
        })
    }
}

fn list_errors(query: &Query) -> Vec<field::Error> {
    let given = |name: &str| query.get(name).unwrap_or("");
    let (wanted, version) = (given("resourceVersionMatch"), given("resourceVersion"));
    let path = field::Path::root("resourceVersionMatch");
    let mut errors = Vec::new();
    let mut forbidden = |text: &str| errors.push(field::Error::forbidden(&path, text));
    if !wanted.is_empty() {
        if version.is_empty() {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !given("continue").is_empty() {
            forbidden("resourceVersionMatch is forbidden when continue is provided");
        }
        if wanted == EXACT && version == "0" {
            forbidden(r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#);
        }
        if !matches!(wanted, EXACT | NOT_OLDER_THAN) {
            let supported = [EXACT, NOT_OLDER_THAN, ""];
            errors.push(field::Error::not_supported(&path, json!(wanted), &supported));
        }
    }
    if query.get("sendInitialEvents").is_some() {
        let path = field::Path::root("sendInitialEvents");
        errors.push(field::Error::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn watch_errors(query: &Query) -> Vec<field::Error> {
    let wanted = query.get("resourceVersionMatch").unwrap_or("");
    let path = field::Path::root("resourceVersionMatch");
    let mut errors = Vec::new();
    let mut forbidden = |text: &str| errors.push(field::Error::forbidden(&path, text));
    let sends = query.get("sendInitialEvents").is_some();
    if sends && wanted != NOT_OLDER_THAN {
        forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if wanted.is_empty() {
        return errors;
    }
    if !sends {
        forbidden(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    }
    if query.get("continue").is_some_and(|token| !token.is_empty()) {
        forbidden("resourceVersionMatch is forbidden when continue is provided");
    }
    if wanted != NOT_OLDER_THAN {
        errors.push(field::Error::not_supported(&path, json!(wanted), &[NOT_OLDER_THAN]));
    }
    errors
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Options of delete, from the body or else from the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub dry_run: bool,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the options of a delete: from `body` if there is one, else from the query.
    ///
    /// # Errors
    /// 400 for a field of the wrong type: a precondition that can't be read is not one that holds. Else 422 as
    /// Kubernetes says it.
    pub(crate) fn parse(query: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let (dry_run, orphan_dependents, policy, uid, resource_version);
        match body {
            Some(body) => {
                let preconditions = &body["preconditions"];
                given::<Map<String, Value>>(body, "preconditions")?;
                dry_run = given::<Vec<String>>(body, "dryRun")?.unwrap_or_default();
                orphan_dependents = given(body, "orphanDependents")?;
                policy = given::<String>(body, "propagationPolicy")?;
                uid = given(preconditions, "uid")?;
                resource_version = given(preconditions, "resourceVersion")?;
            }
            None => {
                dry_run = query.all("dryRun").map(str::to_owned).collect();
                orphan_dependents = query.get("orphanDependents").map(is_true);
                policy = query.get("propagationPolicy").map(str::to_owned);
                (uid, resource_version) = (None, None);
            }
        }
        let mut errors = Vec::new();
        let path = field::Path::root("propagationPolicy");
        let policy = policy.as_deref().filter(|policy| !policy.is_empty());
        if orphan_dependents.is_some() && policy.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::Error::invalid(&path, json!(policy), why));
        }
        let propagation = match policy {
            None => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(field::Error::not_supported(&path, json!(other), &supported));
                None
            }
        };
        let dry_run = self::dry_run(dry_run.iter().map(String::as_str), &mut errors);
        options_ok("DeleteOptions", errors)?;
        let legacy = orphan_dependents
            .map(|orphan: bool| if orphan { Propagation::Orphan } else { Propagation::Background });
        Ok(DeleteOptions { dry_run, propagation: propagation.or(legacy), uid, resource_version })
    }
}

impl DeleteOptions {
    /// The object that these options are.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        let preconditions = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        for (field, wanted) in preconditions {
            if let Some(wanted) = wanted {
                value["preconditions"][field] = json!(wanted);
            }
        }
        value
    }
}

/// The options of a create or update that a query gives, as an object of this kind.
pub(crate) fn options_object(query: &Query, kind: &str) -> Value {
    let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    if !dry_run.is_empty() {
        value["dryRun"] = json!(dry_run);
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(given) = query.get(field).filter(|given| !given.is_empty()) {
            value[field] = json!(given);
        }
    }
    value
}

/// A field of `DeleteOptions`, of the type that it is to have.
fn given<T: DeserializeOwned>(options: &Value, name: &str) -> Result<Option<T>, Status> {
    Option::deserialize(&options[name]).map_err(|error| {
        Status::bad_request(format!(
            r#"DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {name}: {error}"#
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str, watch: bool) -> Result<ListOptions, u16> {
        ListOptions::parse(&Query::parse(Some(query)), watch).map_err(|status| status.code)
    }

    #[test]
    fn a_flag_without_a_value_is_set() {
        for (query, wanted) in [
            ("watch", true),
            ("watch=", true),
            ("watch=1", true),
            ("watch=0", false),
            ("watch=False", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(Some(query)).flag("watch"), wanted, "{query}");
        }
    }

    #[test]
    fn list_options_that_contradict_each_other_are_refused() {
        for (query, watch, code) in [
            ("resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=5&resourceVersionMatch=Newest", false, 422),
            ("continue=x&resourceVersion=5", false, 400),
            ("sendInitialEvents=true", false, 422),
            ("sendInitialEvents=true", true, 422),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=1", true, 422),
            ("resourceVersion=abc", false, 400),
            ("limit=abc", false, 400),
            ("labelSelector=a%20in%20(", false, 400),
        ] {
            assert_eq!(list(query, watch).map(|_| ()), Err(code), "{query}");
        }
        for (query, watch) in [
            ("resourceVersion=5&resourceVersionMatch=Exact", false),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", false),
            ("continue=x&resourceVersion=0", false),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true),
        ] {
            assert!(list(query, watch).is_ok(), "{query}");
        }
    }

    #[test]
    fn a_body_wins_over_the_query_in_a_delete() {
        let query = Query::parse(Some("propagationPolicy=Orphan"));
        assert_eq!(
            DeleteOptions::parse(&query, None).unwrap().propagation,
            Some(Propagation::Orphan)
        );
        let body = json!({"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let options = DeleteOptions::parse(&query, Some(&body)).unwrap();
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.uid.as_deref(), Some("u"));
        let both = json!({"propagationPolicy": "Foreground", "orphanDependents": true});
        assert_eq!(DeleteOptions::parse(&query, Some(&both)).unwrap_err().code, 422);
    }
}
