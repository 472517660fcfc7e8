//! Whether a webhook or a policy is about a request: rules, and selectors of labels.
//! After `predicates/rules` and `policy/matching` of `k8s.io/apiserver`.

use k8s_openapi::api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::labels::Selector;
use kubefed_apimachinery::meta;
use serde_json::Value;

use super::Operation;
use crate::registry::{Part, Route};

/// What rules ask of a request.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub(crate) operation: &'a str,
    pub(crate) definition: &'a Definition,
    /// The version of the request.
    pub(crate) version: &'a GroupVersion,
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Asked<'a> {
    /// `name` is empty where any may be meant.
    pub(crate) fn new(route: &'a Route, part: Part, operation: Operation, name: &'a str) -> Self {
        Asked {
            operation: operation.as_str(),
            definition: &route.resource.definition,
            version: &route.version().group_version,
            subresource: part.subresource(),
            name,
        }
    }
}

/// Finds the version in which one of `rules` is about the request. With `equivalent`, a rule for another version of the
/// kind counts, if none is for the one that was asked for.
pub(crate) fn version<'a>(
    rules: &[NamedRuleWithOperations],
    equivalent: bool,
    asked: &Asked<'a>,
) -> Option<&'a GroupVersion> {
    let others = asked.definition.versions.iter().filter(|version| version.served && equivalent);
    let others = others.map(|version| &version.group_version).filter(|v| *v != asked.version);
    std::iter::once(asked.version)
        .chain(others)
        .find(|version| rules.iter().any(|rule| is_about(rule, version, asked)))
}

fn is_about(rule: &NamedRuleWithOperations, version: &GroupVersion, asked: &Asked<'_>) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        list.iter().flatten().any(|item| item == "*" || item == wanted)
    };
    let resource = |pattern: &String| {
        let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
        (resource == "*" || resource == asked.definition.plural)
            && (sub == "*" || sub == asked.subresource)
    };
    let in_scope = match rule.scope.as_deref() {
        None | Some("*") => true,
        Some("Namespaced") => asked.definition.namespaced,
        Some("Cluster") => !asked.definition.namespaced,
        Some(_) => false,
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    in_scope
        && has(&rule.operations, asked.operation)
        && has(&rule.api_groups, &version.group)
        && has(&rule.api_versions, &version.version)
        && rule.resources.iter().flatten().any(resource)
        && (names.is_empty() || names.iter().any(|name| name == asked.name))
}

/// The selector of an API object; without one, everything is selected.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Result<Selector, String> {
    let selector = serde_json::to_value(selector).map_err(|error| error.to_string())?;
    Selector::from_label_selector(&selector)
}

/// Whether a selector picks the object as it is to be or as it was.
pub(crate) fn selects(selector: &Selector, object: Option<&Value>, old: Option<&Value>) -> bool {
    let picks = |object: &Value| selector.matches(|key| meta::label(object, key));
    selector.is_everything() || object.is_some_and(picks) || old.is_some_and(picks)
}

/// What a policy or a binding of one is about.
#[derive(Debug)]
pub(crate) struct Matcher {
    rules: Vec<NamedRuleWithOperations>,
    excluded: Vec<NamedRuleWithOperations>,
    equivalent: bool,
    pub(crate) namespaces: Selector,
    objects: Selector,
    /// The rules without names of objects.
    broad: Vec<NamedRuleWithOperations>,
}

impl Matcher {
    /// # Errors
    /// What is wrong with a selector.
    pub(crate) fn new(resources: &MatchResources) -> Result<Self, String> {
        let rules = resources.resource_rules.clone().unwrap_or_default();
        let without_names = |rule: &NamedRuleWithOperations| NamedRuleWithOperations {
            resource_names: None,
            ..rule.clone()
        };
        Ok(Matcher {
            broad: rules.iter().map(without_names).collect(),
            rules,
            excluded: resources.exclude_resource_rules.clone().unwrap_or_default(),
            equivalent: resources.match_policy.as_deref() != Some("Exact"),
            namespaces: selector(resources.namespace_selector.as_ref())?,
            objects: selector(resources.object_selector.as_ref())?,
        })
    }

    /// Whether it may be about such requests, whatever the name, the object and the namespace.
    pub(crate) fn concerns(&self, asked: &Asked<'_>) -> bool {
        self.broad.is_empty() || version(&self.broad, self.equivalent, asked).is_some()
    }

    /// The version in which it is about the request, as far as can be told without the namespace.
    /// Without rules, it is about everything that is not excluded.
    pub(crate) fn version<'a>(
        &self,
        asked: &Asked<'a>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Option<&'a GroupVersion> {
        if version(&self.excluded, self.equivalent, asked).is_some()
            || !selects(&self.objects, object, old)
        {
            return None;
        }
        match self.rules.is_empty() {
            true => Some(asked.version),
            false => version(&self.rules, self.equivalent, asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Definition {
        let mut definition = kubefed_api::kinds()
            .into_iter()
            .find(|kind| kind.plural == "kubefedclusters")
            .expect("a kind of ours");
        let mut newer = definition.versions[0].clone();
        newer.group_version.version = "v2".into();
        definition.versions.push(newer);
        definition
    }

    fn matches(resources: Value, subresource: &str, labels: Value) -> Option<String> {
        let definition = definition();
        let asked = Asked {
            operation: "CREATE",
            definition: &definition,
            version: &definition.versions[0].group_version,
            subresource,
            name: "a",
        };
        let matcher = serde_json::from_value(resources).expect("MatchResources");
        let matcher = Matcher::new(&matcher).expect("it is well-formed");
        let object = json!({"metadata": {"labels": labels}});
        let other = Asked { name: "other", ..asked };
        assert!(matcher.concerns(&other) || matcher.version(&asked, Some(&object), None).is_none());
        matcher.version(&asked, Some(&object), None).map(|version| version.version.clone())
    }

    fn rule(changes: Value) -> Value {
        let mut rule = json!({
            "apiGroups": ["core.kubefed.io"], "apiVersions": ["v1beta1"],
            "resources": ["kubefedclusters"], "operations": ["CREATE"],
        });
        for (field, value) in changes.as_object().expect("fields") {
            rule[field] = value.clone();
        }
        rule
    }

    #[test]
    fn every_part_of_a_rule_has_to_fit() {
        for (changes, subresource, wanted) in [
            (json!({}), "", Some("v1beta1")),
            (json!({"apiGroups": ["*"]}), "", Some("v1beta1")),
            (json!({"apiGroups": ["apps"]}), "", None),
            (json!({"apiVersions": ["v2"]}), "", Some("v2")),
            (json!({"apiVersions": ["v3"]}), "", None),
            (json!({"operations": ["UPDATE", "DELETE"]}), "", None),
            (json!({"operations": ["*"]}), "", Some("v1beta1")),
            (json!({"scope": "Namespaced"}), "", Some("v1beta1")),
            (json!({"scope": "Cluster"}), "", None),
            (json!({}), "status", None),
            (json!({"resources": ["*"]}), "status", None),
            (json!({"resources": ["*/*"]}), "status", Some("v1beta1")),
            (json!({"resources": ["kubefedclusters/status"]}), "status", Some("v1beta1")),
            (json!({"resources": ["kubefedclusters/status"]}), "", None),
            (json!({"resourceNames": ["a", "b"]}), "", Some("v1beta1")),
            (json!({"resourceNames": ["b"]}), "", None),
        ] {
            let resources = json!({"resourceRules": [rule(changes.clone())]});
            let found = matches(resources, subresource, json!({}));
            assert_eq!(found.as_deref(), wanted, "{changes} {subresource}");
        }
    }

    #[test]
    fn what_is_excluded_or_not_selected_does_not_match() {
        let selected = json!({"matchLabels": {"tier": "gold"}});
        for (resources, wanted) in [
            (json!({}), true),
            (json!({"resourceRules": [rule(json!({}))]}), true),
            (json!({"excludeResourceRules": [rule(json!({}))]}), false),
            (json!({"excludeResourceRules": [rule(json!({"apiVersions": ["v2"]}))]}), false),
            (
                json!({"matchPolicy": "Exact", "excludeResourceRules": [rule(json!({"apiVersions": ["v2"]}))]}),
                true,
            ),
            (
                json!({"matchPolicy": "Exact", "resourceRules": [rule(json!({"apiVersions": ["v2"]}))]}),
                false,
            ),
            (json!({"objectSelector": selected}), true),
            (json!({"objectSelector": {"matchLabels": {"tier": "lead"}}}), false),
        ] {
            let found = matches(resources.clone(), "", json!({"tier": "gold"}));
            assert_eq!(found.is_some(), wanted, "{resources}");
        }
    }

    #[test]
    fn the_old_object_is_selected_too() {
        let selector = Selector::parse("a=b").expect("a selector");
        let with = json!({"metadata": {"labels": {"a": "b"}}});
        let without = json!({"metadata": {}});
        assert!(selects(&selector, Some(&without), Some(&with)));
        assert!(!selects(&selector, Some(&without), None));
        assert!(!selects(&selector, None, None));
    }
}
