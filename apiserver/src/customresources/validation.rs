//! What a CustomResourceDefinition may be (`apiextensions/validation`).

use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field::{Error, Path};
use kubefed_apimachinery::table::Column;
use kubefed_apimachinery::{meta, names};
use serde_json::{Value, json};

use super::names::is_true;
use super::{FINALIZER, structural};

pub(crate) const STRATEGY: Strategy = Strategy {
    defaults,
    validate,
    validate_update,
    validate_status: |new, _| stored_versions(new),
    warnings,
    finalizer: Some(FINALIZER),
    ..Strategy::NONE
};

/// Needed for groups of Kubernetes itself, whose names mean something to others.
const APPROVED: &str = "api-approved.kubernetes.io";

const COLUMN_TYPES: &[&str] = &["integer", "number", "string", "boolean", "date"];

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

fn versions(crd: &Value) -> &[Value] {
    crd["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn defaults(crd: &mut Value) {
    let spec = &mut crd["spec"];
    if !spec.is_object() {
        return;
    }
    let kind = text(&spec["names"], "kind").to_owned();
    if !kind.is_empty() {
        let names = &mut spec["names"];
        if text(names, "singular").is_empty() {
            names["singular"] = json!(kind.to_lowercase());
        }
        if text(names, "listKind").is_empty() {
            names["listKind"] = json!(format!("{kind}List"));
        }
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    let Some(stored) = versions(crd).iter().find(|version| version["storage"] == true) else {
        return;
    };
    let stored = stored["name"].clone();
    if !crd["status"].is_object() {
        crd["status"] = json!({});
    }
    if !crd["status"]["storedVersions"].is_array() {
        crd["status"]["storedVersions"] = json!([]);
    }
    if let Some(known) = crd["status"]["storedVersions"].as_array_mut()
        && !known.contains(&stored)
    {
        known.push(stored);
    }
}

fn validate(crd: &Value) -> Vec<Error> {
    let (spec, root) = (&crd["spec"], Path::root("spec"));
    let mut errors = Vec::new();
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    if meta::name(crd) != wanted {
        let path = Path::root("metadata").child("name");
        let detail = format!("must be spec.names.plural+\".\"+spec.group: {wanted}");
        errors.push(Error::invalid(&path, json!(meta::name(crd)), detail));
    }
    group(crd, &mut errors);
    match text(spec, "scope") {
        "" => errors.push(Error::required(&root.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(Error::not_supported(
            &root.child("scope"),
            json!(other),
            &["Cluster", "Namespaced"],
        )),
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&root.child("preserveUnknownFields"), json!(true), detail));
    }
    if !matches!(text(&spec["conversion"], "strategy"), "" | "None") {
        let path = root.child("conversion").child("strategy");
        let strategy = spec["conversion"]["strategy"].clone();
        errors.push(Error::not_supported(&path, strategy, &["None"]));
    }
    let versions = versions(crd);
    for (index, version) in versions.iter().enumerate() {
        of_version(version, &root.child("versions").index(index), &mut errors);
    }
    let version_names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let path = root.child("versions");
    if (1..version_names.len()).any(|i| version_names[..i].contains(&version_names[i])) {
        errors.push(Error::invalid(
            &path,
            json!(version_names),
            "must contain unique version names",
        ));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&path, json!(version_names), detail));
    }
    of_names(&spec["names"], &root.child("names"), &mut errors);
    errors.extend(stored_versions(crd));
    errors
}

fn group(crd: &Value, errors: &mut Vec<Error>) {
    let path = Path::root("spec").child("group");
    let group = text(&crd["spec"], "group");
    let problems = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if !problems.is_empty() {
        errors.push(Error::invalid(&path, json!(group), problems.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(Error::invalid(&path, json!(group), detail));
    }
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|protected| {
        group.strip_suffix(protected).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if is_protected && meta::annotation(crd, APPROVED).is_none_or(str::is_empty) {
        let path = Path::root("metadata").child("annotations").key(APPROVED);
        let detail = format!("protected groups must have approval annotation {APPROVED:?}");
        errors.push(Error::required(&path, detail));
    }
}

fn of_names(of: &Value, path: &Path, errors: &mut Vec<Error>) {
    for (field, mixed) in
        [("plural", false), ("singular", false), ("kind", true), ("listKind", true)]
    {
        let name = text(of, field);
        let problems = if mixed {
            names::dns1035_label(&name.to_lowercase())
        } else {
            names::dns1035_label(name)
        };
        if name.is_empty() {
            errors.push(Error::required(&path.child(field), ""));
        } else if !problems.is_empty() {
            let note = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            let detail = format!("{note}{}", problems.join(","));
            errors.push(Error::invalid(&path.child(field), json!(name), detail));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in of[field].as_array().into_iter().flatten().enumerate() {
            let problems = names::dns1035_label(name.as_str().unwrap_or(""));
            if !problems.is_empty() {
                let path = path.child(field).index(index);
                errors.push(Error::invalid(&path, name.clone(), problems.join(",")));
            }
        }
    }
    let list_kind = text(of, "listKind");
    if !list_kind.is_empty() && list_kind == text(of, "kind") {
        let detail = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), json!(list_kind), detail));
    }
}

fn of_version(version: &Value, path: &Path, errors: &mut Vec<Error>) {
    let problems = names::dns1035_label(text(version, "name"));
    if !problems.is_empty() {
        let name = version["name"].clone();
        errors.push(Error::invalid(&path.child("name"), name, problems.join(",")));
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let schema_path = path.child("schema").child("openAPIV3Schema");
    if schema.is_object() {
        structural::validate(schema, &schema_path, errors);
    } else {
        errors.push(Error::required(&schema_path, "schemas are required"));
    }
    let scale = &version["subresources"]["scale"];
    if scale.is_object() {
        let path = path.child("subresources").child("scale");
        below(scale, "specReplicasPath", &[".spec."], true, &path, errors);
        below(scale, "statusReplicasPath", &[".status."], true, &path, errors);
        below(scale, "labelSelectorPath", &[".spec.", ".status."], false, &path, errors);
    }
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    for (index, field) in fields.enumerate() {
        let path = path.child("selectableFields").index(index);
        below(field, "jsonPath", &["."], true, &path, errors);
    }
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    for (index, column) in columns.enumerate() {
        of_column(column, &path.child("additionalPrinterColumns").index(index), errors);
    }
}

/// A path of fields below one of `roots`.
fn below(
    of: &Value,
    field: &str,
    roots: &[&str],
    required: bool,
    path: &Path,
    errors: &mut Vec<Error>,
) {
    let (value, path) = (text(of, field), path.child(field));
    if value.is_empty() {
        if required {
            errors.push(Error::required(&path, ""));
        }
        return;
    }
    let is_below = |root: &&str| value.strip_prefix(*root).is_some_and(|rest| !rest.is_empty());
    let of_fields = value.split('.').skip(1).all(|field| {
        !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    });
    if !roots.iter().any(is_below) || !of_fields {
        let names: Vec<&str> = roots.iter().map(|root| root.trim_end_matches('.')).collect();
        let detail = format!("should be a json path of fields under {}", names.join(" or "));
        errors.push(Error::invalid(&path, json!(value), detail));
    }
}

fn of_column(column: &Value, path: &Path, errors: &mut Vec<Error>) {
    if text(column, "name").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let kinds = format!("must be one of {}", COLUMN_TYPES.join(","));
    match text(column, "type") {
        "" => errors.push(Error::required(&path.child("type"), kinds)),
        kind if COLUMN_TYPES.contains(&kind) => {}
        kind => errors.push(Error::invalid(&path.child("type"), json!(kind), kinds)),
    }
    match text(column, "jsonPath") {
        "" => errors.push(Error::required(&path.child("jsonPath"), "")),
        json_path => {
            if let Err(why) = Column::parse("x", "string", json_path, 0) {
                errors.push(Error::invalid(&path.child("jsonPath"), json!(json_path), why));
            }
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Error> {
    let established = is_true(old, "Established");
    [
        ("/spec/group", true),
        ("/spec/names/plural", true),
        ("/spec/scope", established),
        ("/spec/names/kind", established),
    ]
    .into_iter()
    .filter(|(pointer, fixed)| *fixed && new.pointer(pointer) != old.pointer(pointer))
    .map(|(pointer, _)| {
        let path = Path::root(&pointer[1..].replace('/', "."));
        let value = new.pointer(pointer).cloned().unwrap_or_default();
        Error::invalid(&path, value, "field is immutable")
    })
    .collect()
}

/// The store may hold objects of these versions: each must still be one, and the one that is written is among them.
fn stored_versions(crd: &Value) -> Vec<Error> {
    let path = Path::root("status").child("storedVersions");
    let stored = crd["status"]["storedVersions"].as_array().into_iter().flatten();
    stored
        .enumerate()
        .filter(|(_, stored)| !versions(crd).iter().any(|version| version["name"] == **stored))
        .map(|(index, stored)| {
            let name = stored.as_str().unwrap_or("");
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            Error::invalid(&path.index(index), stored.clone(), detail)
        })
        .collect()
}

/// What a definition says in vain.
fn warnings(crd: &Value) -> Vec<String> {
    let has_rules = |version: &Value| structural::has_rules(&version["schema"]["openAPIV3Schema"]);
    let rules = versions(crd).iter().enumerate().filter(|(_, version)| has_rules(version));
    rules
        .map(|(index, _)| {
            format!("spec.versions[{index}].schema: x-kubernetes-validations are kept but not evaluated by this server")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        let mut crd = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        defaults(&mut crd);
        crd
    }

    #[test]
    fn what_was_left_out_is_filled_in() {
        let crd = crd();
        assert_eq!(crd["spec"]["names"]["singular"], "widget");
        assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
        assert!(validate(&crd).is_empty());
    }

    #[test]
    fn every_wrong_field_is_told() {
        let v1 = &crd()["spec"]["versions"][0];
        let with = |field: &str, value: Value| {
            let mut version = v1.clone();
            version[field] = value;
            json!([version])
        };
        for (pointer, value, wanted) in [
            ("/metadata/name", json!("widgets"), "metadata.name"),
            ("/spec/scope", json!("Galaxy"), "spec.scope"),
            ("/spec/names/kind", json!("a b"), "spec.names.kind"),
            ("/spec/names/listKind", json!("Widget"), "spec.names.listKind"),
            ("/spec/names/singular", json!("Widget"), "spec.names.singular"),
            (
                "/spec/names",
                json!({"plural": "widgets", "singular": "a", "kind": "A", "listKind": "B", "shortNames": ["w", "W"]}),
                "spec.names.shortNames[1]",
            ),
            ("/spec/conversion/strategy", json!("Webhook"), "spec.conversion.strategy"),
            ("/spec/versions", json!([v1, v1]), "spec.versions,spec.versions"),
            ("/spec/versions", with("storage", json!(false)), "spec.versions"),
            (
                "/spec/versions",
                with("schema", json!({})),
                "spec.versions[0].schema.openAPIV3Schema",
            ),
            (
                "/spec/versions",
                with(
                    "subresources",
                    json!({"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ".status.a[0]"}}),
                ),
                "spec.versions[0].subresources.scale.specReplicasPath,spec.versions[0].subresources.scale.statusReplicasPath",
            ),
            (
                "/spec/versions",
                with(
                    "additionalPrinterColumns",
                    json!([{"name": "A", "type": "text", "jsonPath": "spec"}]),
                ),
                "spec.versions[0].additionalPrinterColumns[0].type,spec.versions[0].additionalPrinterColumns[0].jsonPath",
            ),
            ("/spec/versions/0/name", json!("v2"), "status.storedVersions[0]"),
        ] {
            let mut crd = crd();
            *crd.pointer_mut(pointer).unwrap() = value;
            let paths: Vec<String> = validate(&crd).into_iter().map(|error| error.path).collect();
            assert_eq!(paths.join(","), wanted, "{pointer}: {:?}", validate(&crd));
        }
    }

    #[test]
    fn groups_of_kubernetes_need_approval() {
        let mut crd = crd();
        crd["metadata"]["name"] = json!("widgets.batch.k8s.io");
        crd["spec"]["group"] = json!("batch.k8s.io");
        let errors = validate(&crd);
        assert_eq!(errors[0].path, "metadata.annotations[api-approved.kubernetes.io]");
        crd["metadata"]["annotations"] = json!({APPROVED: "unapproved, a test"});
        assert!(validate(&crd).is_empty());
        crd["metadata"]["name"] = json!("widgets.apps");
        crd["spec"]["group"] = json!("apps");
        assert_eq!(validate(&crd)[0].path, "spec.group");
    }

    #[test]
    fn what_the_store_depends_on_is_immutable() {
        let (old, mut new) = (crd(), crd());
        new["spec"]["scope"] = json!("Cluster");
        assert!(validate_update(&new, &old).is_empty());
        let mut established = old;
        established["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        new["spec"]["names"]["plural"] = json!("gadgets");
        let errors = validate_update(&new, &established);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["spec.names.plural", "spec.scope"]);
    }
}
