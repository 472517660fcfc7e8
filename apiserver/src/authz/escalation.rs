//! Nobody gives what they do not have: the checks of `pkg/registry/rbac` of Kubernetes on writes of roles and bindings.
//!
//! A role may state only what its writer may do in the same place, or the writer has the right to `escalate` it; a
//! binding may name only a role that its maker holds the rules of, or has the right to `bind`.

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::Status;
use serde_json::{Value, json};

use super::rbac::{GROUP, Index, Rule, rules_of};
use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};

/// A role is taken apart into single rights, one for each verb, group, resource and name. More than this many would
/// keep the server busy for one request.
const MAX_RIGHTS: usize = 100_000;

/// A write of a role or binding.
pub(crate) struct Change<'a> {
    pub(crate) resource: &'a str,
    pub(crate) kind: &'a str,
    /// Empty for what holds in the whole cluster.
    pub(crate) namespace: &'a str,
    /// The object before, unless it is a new one.
    pub(crate) live: Option<&'a Value>,
    pub(crate) new: &'a Value,
}

/// # Errors
/// 403 that names the first right that `user` lacks.
pub(crate) fn check(index: &Index, user: &UserInfo, change: &Change<'_>) -> Result<(), Status> {
    let unchanged = |fields: &[&str]| {
        change
            .live
            .is_some_and(|live| fields.iter().all(|field| live.get(field) == change.new.get(field)))
    };
    let wanted = match change.kind {
        _ if user.is_in(MASTERS) => return Ok(()),
        "Role" | "ClusterRole" => {
            let name = change.new["metadata"]["name"].as_str().unwrap_or("");
            if unchanged(&["rules", "aggregationRule"])
                || may(index, user, "escalate", change.resource, change.namespace, name)
            {
                return Ok(());
            }
            let mut rules = rules_of(change.new);
            if !change.new["aggregationRule"].is_null() {
                // It can gather anything.
                rules.push(everything());
            }
            rules
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &change.new["roleRef"];
            let name = role["name"].as_str().unwrap_or("");
            let (resource, place) = if role["kind"] == "Role" {
                ("roles", change.namespace)
            } else {
                ("clusterroles", "")
            };
            if unchanged(&["roleRef", "subjects"])
                || may(index, user, "bind", resource, change.namespace, name)
            {
                return Ok(());
            }
            let Some(rules) = index.role(place, name) else {
                return Err(refusal(
                    change,
                    format!("the role {name:?} that it names is not there"),
                ));
            };
            rules.to_vec()
        }
        _ => return Ok(()),
    };
    let held: Vec<&Rule> = index.rules_for(user, change.namespace).collect();
    for rule in &wanted {
        if let Some(missing) = not_covered(&held, rule) {
            return Err(refusal(
                change,
                format!(
                    "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
                    user.name,
                    json!(user.groups),
                    json!(missing)
                ),
            ));
        }
    }
    Ok(())
}

fn everything() -> Rule {
    let all = || vec!["*".to_owned()];
    Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() }
}

fn may(
    index: &Index,
    user: &UserInfo,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let request = RequestInfo {
        verb: verb.into(),
        is_resource: true,
        group: GROUP.into(),
        version: "v1".into(),
        namespace: namespace.into(),
        resource: resource.into(),
        name: name.into(),
        ..RequestInfo::default()
    };
    index.allows(user, &request)
}

fn refusal(change: &Change<'_>, why: String) -> Status {
    let resource = GroupResource { group: GROUP.into(), resource: change.resource.into() };
    Status::forbidden(&resource, change.new["metadata"]["name"].as_str().unwrap_or(""), why)
}

/// The first right of `wanted` that no rule of `held` gives.
fn not_covered(held: &[&Rule], wanted: &Rule) -> Option<Rule> {
    if held.contains(&wanted) {
        return None;
    }
    let names = wanted.resource_names.len().max(1);
    let rights = [wanted.verbs.len(), wanted.api_groups.len(), wanted.resources.len(), names]
        .into_iter()
        .fold(1_usize, usize::saturating_mul);
    let urls = wanted.verbs.len().saturating_mul(wanted.non_resource_urls.len());
    if rights.saturating_add(urls) > MAX_RIGHTS {
        return Some(wanted.clone());
    }
    let one = |text: &String| vec![text.clone()];
    for verb in &wanted.verbs {
        for url in &wanted.non_resource_urls {
            if !held.iter().any(|rule| has(&rule.verbs, verb) && covers_url(rule, url)) {
                let (verbs, non_resource_urls) = (one(verb), one(url));
                return Some(Rule { verbs, non_resource_urls, ..Rule::default() });
            }
        }
        for group in &wanted.api_groups {
            for resource in &wanted.resources {
                let holding: Vec<&&Rule> = held
                    .iter()
                    .filter(|rule| {
                        has(&rule.verbs, verb)
                            && has(&rule.api_groups, group)
                            && covers_resource(rule, resource)
                    })
                    .collect();
                let for_all = holding.iter().any(|rule| rule.resource_names.is_empty());
                let missing: Vec<String> = wanted
                    .resource_names
                    .iter()
                    .filter(|name| !holding.iter().any(|rule| rule.resource_names.contains(name)))
                    .cloned()
                    .collect();
                if !for_all && (wanted.resource_names.is_empty() || !missing.is_empty()) {
                    return Some(Rule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        resource_names: missing,
                        ..Rule::default()
                    });
                }
            }
        }
    }
    None
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn covers_resource(rule: &Rule, wanted: &str) -> bool {
    has(&rule.resources, wanted)
        || wanted
            .split_once('/')
            .is_some_and(|(_, subresource)| rule.resources.contains(&format!("*/{subresource}")))
}

fn covers_url(rule: &Rule, wanted: &str) -> bool {
    rule.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
        Some(prefix) => wanted.starts_with(prefix),
        None => url == wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> Rule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rule {
            verbs: texts(verbs),
            api_groups: texts(groups),
            resources: texts(resources),
            resource_names: texts(names),
            ..Rule::default()
        }
    }

    #[test]
    fn a_rule_is_covered_by_rules_that_give_each_of_its_rights() {
        let pods = rule(&[""], &["pods"], &["get", "list"], &[]);
        let logs = rule(&[""], &["*/log"], &["get"], &[]);
        let one = rule(&[""], &["secrets"], &["get"], &["one", "two"]);
        let all = rule(&["*"], &["*"], &["*"], &[]);
        let held = [&pods, &logs, &one];
        for (wanted, covered) in [
            (rule(&[""], &["pods"], &["list", "get"], &[]), true),
            (rule(&[""], &["pods"], &["get"], &["x"]), true),
            (rule(&[""], &["pods", "pods/log"], &["get"], &[]), true),
            (rule(&[""], &["pods/log"], &["list"], &[]), false),
            (rule(&[""], &["pods"], &["*"], &[]), false),
            (rule(&["*"], &["pods"], &["get"], &[]), false),
            (rule(&[""], &["*"], &["get"], &[]), false),
            (rule(&[""], &["secrets"], &["get"], &["two"]), true),
            (rule(&[""], &["secrets"], &["get"], &["two", "three"]), false),
            (rule(&[""], &["secrets"], &["get"], &[]), false),
        ] {
            assert_eq!(not_covered(&held, &wanted).is_none(), covered, "{wanted:?}");
            assert_eq!(not_covered(&[&all], &wanted), None, "{wanted:?}");
        }
        let urls = |url: &str| Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec![url.into()],
            ..Rule::default()
        };
        assert_eq!(not_covered(&[&urls("/a/*")], &urls("/a/b")), None);
        assert!(not_covered(&[&urls("/a/*")], &urls("*")).is_some());
    }

    #[test]
    fn a_rule_of_too_many_rights_is_not_looked_through() {
        let many: Vec<String> = (0..400).map(|n| n.to_string()).collect();
        let huge = Rule {
            verbs: many.clone(),
            api_groups: many.clone(),
            resources: many,
            ..Rule::default()
        };
        assert!(not_covered(&[&everything()], &huge).is_some());
    }
}
