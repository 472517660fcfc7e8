//! From a CustomResourceDefinition to what the server must know of its kind.

use std::collections::BTreeMap;

use kubefed_apimachinery::definition::{Definition, Scale, Strategy, Subresources, Version};
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::schema::Schemas;
use kubefed_apimachinery::table::Column;
use serde_json::{Value, json};

use super::is_terminating;
use super::names::Names;

/// The kind that a definition defines, by these names. Versions differ in their schemas and columns; subresources and
/// selectable fields are those of the stored one, for an object has them whatever its version.
///
/// # Errors
/// Why it can't be served. A definition that was validated can.
pub(crate) fn of(crd: &Value, names: &Names) -> Result<Definition, String> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let group = text(&spec["group"]);
    let mut package: Vec<&str> = group.split('.').collect();
    package.reverse();
    let package = package.join(".");
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name_of = |version: &Value| format!("{package}.{}.{}", text(&version["name"]), names.kind);
    let documents: BTreeMap<String, Value> =
        versions.iter().map(|version| (name_of(version), document(spec, version))).collect();
    let schemas = Schemas::structural(documents);
    let group_version =
        |version: &Value| GroupVersion { group: group.clone(), version: text(&version["name"]) };
    let stored = versions
        .iter()
        .find(|version| version["storage"] == true)
        .ok_or("no version is the stored one")?;
    // Nobody calls a webhook here, and an object that is not converted is another object.
    let converts = spec["conversion"]["strategy"] != "Webhook";
    let version = |version: &Value| {
        let schema_name = name_of(version);
        Ok(Version {
            group_version: group_version(version),
            schema: schemas.get(&schema_name).ok_or("the schema is no object")?,
            schema_name,
            columns: columns(&version["additionalPrinterColumns"])?,
            served: version["served"] == true && (converts || version["storage"] == true),
        })
    };
    Ok(Definition {
        kind: names.kind.clone(),
        list_kind: names.list_kind.clone(),
        plural: names.plural.clone(),
        singular: names.singular.clone(),
        short_names: names.short_names.clone(),
        categories: names.categories.clone(),
        namespaced: spec["scope"] == "Namespaced",
        versions: versions.iter().map(version).collect::<Result<_, String>>()?,
        storage: group_version(stored),
        subresources: subresources(&stored["subresources"]),
        selectable_fields: (stored["selectableFields"].as_array().into_iter().flatten())
            .map(|field| dotted(&field["jsonPath"]))
            .collect(),
        strategic_patch: false,
        terminating: is_terminating(crd),
        strategy: Strategy::NONE,
        group,
    })
}

fn document(spec: &Value, version: &Value) -> Value {
    let mut document = version["schema"]["openAPIV3Schema"].clone();
    // Definitions that a host has had since before v1 may keep everything everywhere.
    if spec["preserveUnknownFields"] == true {
        document = json!({"x-kubernetes-preserve-unknown-fields": true});
    }
    if !document.is_object() {
        document = json!({});
    }
    // May be left out where anything is kept.
    document["type"] = json!("object");
    document
}

/// The columns of a version; without any the age is shown.
pub(super) fn columns(columns: &Value) -> Result<Vec<Column>, String> {
    let columns = columns.as_array().map(Vec::as_slice).unwrap_or_default();
    if columns.is_empty() {
        return Ok(vec![Column::age()]);
    }
    let column = |column: &Value| {
        let text = |field: &str| column[field].as_str().unwrap_or("");
        let priority = column["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
        let mut parsed = Column::parse(text("name"), text("type"), text("jsonPath"), priority)?;
        parsed.description = text("description").to_owned();
        Ok(parsed)
    };
    columns.iter().map(column).collect()
}

fn subresources(subresources: &Value) -> Subresources {
    let scale = &subresources["scale"];
    Subresources {
        status: subresources["status"].is_object(),
        scale: scale.is_object().then(|| Scale {
            spec_replicas: dotted(&scale["specReplicasPath"]),
            status_replicas: dotted(&scale["statusReplicasPath"]),
            selector: scale["labelSelectorPath"]
                .is_string()
                .then(|| dotted(&scale["labelSelectorPath"])),
        }),
    }
}

/// `.spec.replicas` without its first dot.
fn dotted(path: &Value) -> String {
    path.as_str().unwrap_or("").trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;

    #[test]
    fn a_definition_is_read_as_a_whole() {
        let crd = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "categories": ["all"]},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"x-kubernetes-preserve-unknown-fields": true}}},
                    {
                        "name": "v1", "served": false, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
                        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                        "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n", "priority": 1, "description": "d"}],
                        "selectableFields": [{"jsonPath": ".spec.color"}],
                    },
                ],
            },
        });
        let names = Names::deserialize(&crd["spec"]["names"]).unwrap();
        let definition = of(&crd, &names).unwrap();
        let scale = definition.subresources.scale.unwrap();
        assert_eq!((scale.spec_replicas.as_str(), scale.selector), ("spec.n", None));
        assert!(definition.subresources.status && definition.namespaced && !definition.terminating);
        assert_eq!(definition.storage.to_string(), "example.com/v1");
        assert_eq!(definition.selectable_fields, ["spec.color"]);
        let [beta, stored] = definition.versions.as_slice() else { panic!("two versions") };
        assert_eq!(beta.columns, [Column::age()]);
        assert_eq!(stored.columns[0].description, "d");
        assert!(beta.served && !stored.served);
        assert_eq!(stored.schema_name, "com.example.v1.Widget");
        let object = || json!({"kind": "Widget", "spec": {"n": 1}});
        let mut of_beta = object();
        assert!(beta.schema.prune(&mut of_beta).is_empty());
        assert_eq!(stored.schema.prune(&mut object()), ["spec.n"]);
    }

    #[test]
    fn what_would_change_an_object_behind_its_back_is_not_done() {
        let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
        let mut crd = json!({"spec": {
            "group": "example.com", "names": {"plural": "widgets", "kind": "Widget"},
            "conversion": {"strategy": "Webhook"},
            "versions": [version("v1", true), version("v2", false)],
        }});
        let names = Names::deserialize(&crd["spec"]["names"]).unwrap();
        let served = |crd: &Value| -> Vec<bool> {
            of(crd, &names).unwrap().versions.iter().map(|version| version.served).collect()
        };
        assert_eq!(served(&crd), [true, false]);
        crd["spec"]["conversion"] = json!({"strategy": "None"});
        assert_eq!(served(&crd), [true, true]);

        let mut object = json!({"spec": {"any": {"thing": 1}}});
        let schema = |crd: &Value| of(crd, &names).unwrap().versions[0].schema.clone();
        crd["spec"]["preserveUnknownFields"] = json!(true);
        assert!(schema(&crd).prune(&mut object).is_empty());
        crd["spec"]["preserveUnknownFields"] = json!(false);
        assert_eq!(schema(&crd).prune(&mut object), ["spec"]);
    }
}
