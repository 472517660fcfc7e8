//! Which names a definition gets, and what its status says. Names are had by who asked first; within a group a resource
//! has one meaning.

use std::collections::HashSet;

use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::meta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::is_terminating;

/// The names of a kind, as in a definition's `spec.names` and `status.acceptedNames`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Names {
    pub(crate) plural: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) singular: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) short_names: Vec<String>,
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) list_kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) categories: Vec<String>,
}

impl Names {
    /// The names of a kind that is served.
    pub(crate) fn of(definition: &Definition) -> Self {
        Names {
            plural: definition.plural.clone(),
            singular: definition.singular.clone(),
            short_names: definition.short_names.clone(),
            kind: definition.kind.clone(),
            list_kind: definition.list_kind.clone(),
            categories: definition.categories.clone(),
        }
    }

    fn read(names: &Value) -> Self {
        Names::deserialize(names).unwrap_or_default()
    }
}

/// The names that others have in a group.
#[derive(Default)]
struct Taken<'a> {
    resources: HashSet<&'a str>,
    kinds: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, names: &'a Names) {
        self.resources.extend([names.plural.as_str(), &names.singular]);
        self.resources.extend(names.short_names.iter().map(String::as_str));
        self.kinds.extend([names.kind.as_str(), &names.list_kind]);
    }
}

/// What follows from one definition.
#[derive(Debug)]
pub(super) struct Decision {
    /// The names that it has.
    pub(super) names: Names,
    /// Why it does not have all that it asks for: a reason and a message.
    conflict: Option<(&'static str, String)>,
    /// Whether it is served, now that it has its names or has had them.
    pub(super) established: bool,
}

/// Decides about all definitions. `own` are the kinds that the server has without them, by group.
pub(super) fn decide(crds: &[Value], own: &[(String, Names)]) -> Vec<Decision> {
    let group = |index: usize| crds[index]["spec"]["group"].as_str().unwrap_or("");
    let mut names: Vec<Names> =
        crds.iter().map(|crd| Names::read(&crd["status"]["acceptedNames"])).collect();
    let mut conflicts = vec![None; crds.len()];
    let mut by_age: Vec<usize> = (0..crds.len()).collect();
    by_age.sort_by_key(|&index| {
        let metadata = &crds[index]["metadata"];
        (metadata["creationTimestamp"].as_str().unwrap_or(""), meta::name(&crds[index]))
    });
    for &index in &by_age {
        let mut taken = Taken::default();
        let of_server = own.iter().filter(|(of, _)| of == group(index)).map(|(_, names)| names);
        let of_others = names
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != index && group(other) == group(index))
            .map(|(_, names)| names);
        of_server.chain(of_others).for_each(|names| taken.add(names));
        let asked = Names::read(&crds[index]["spec"]["names"]);
        let (accepted, conflict) = accept(asked, names[index].clone(), &taken);
        names[index] = accepted;
        conflicts[index] = conflict;
    }
    (crds.iter().zip(names).zip(conflicts))
        .map(|((crd, names), conflict)| Decision {
            names,
            established: conflict.is_none() || is_true(crd, "Established"),
            conflict,
        })
        .collect()
}

/// The names that may be had of those that are asked for, beside those that are held, and why not the others.
fn accept(asked: Names, held: Names, taken: &Taken<'_>) -> (Names, Option<(&'static str, String)>) {
    let mut conflicts: Vec<(&str, String)> = Vec::new();
    let mut free = |name: &str, taken: &HashSet<&str>, reason| {
        let is_free = name.is_empty() || !taken.contains(name);
        if !is_free {
            conflicts.push((reason, format!("{name:?} is already in use")));
        }
        is_free
    };
    let mut one = |asked: String, held, taken: &HashSet<&str>, reason| {
        if free(&asked, taken, reason) { asked } else { held }
    };
    let names = Names {
        plural: one(asked.plural, held.plural, &taken.resources, "PluralConflict"),
        singular: one(asked.singular, held.singular, &taken.resources, "SingularConflict"),
        kind: one(asked.kind, held.kind, &taken.kinds, "KindConflict"),
        list_kind: one(asked.list_kind, held.list_kind, &taken.kinds, "ListKindConflict"),
        categories: asked.categories,
        short_names: {
            let count = asked.short_names.len();
            let free: Vec<String> = (asked.short_names.into_iter())
                .filter(|name| free(name, &taken.resources, "ShortNamesConflict"))
                .collect();
            if free.len() == count { free } else { held.short_names }
        },
    };
    let reason = conflicts.first().map(|(reason, _)| *reason);
    let texts: Vec<String> = conflicts.into_iter().map(|(_, text)| text).collect();
    (names, reason.map(|reason| (reason, texts.join(", "))))
}

/// The names under which a definition of another server, which has accepted them, is served beside the kinds of this
/// one: `own`, each with a group that it is served in.
///
/// # Errors
/// Why it is not served. A kind of the server's own is never replaced, and its name means nothing else.
pub(crate) fn beside(crd: &Value, own: &[(String, Names)]) -> Result<Names, String> {
    if !is_true(crd, "Established") {
        return Err("its cluster has not established it".into());
    }
    let mut names = Names::read(&crd["status"]["acceptedNames"]);
    for (_, kind) in own.iter().filter(|(group, _)| *group == crd["spec"]["group"]) {
        let mut taken = Taken::default();
        taken.add(kind);
        let resources = [&names.plural, &names.singular];
        let is_taken = resources.iter().any(|name| taken.resources.contains(name.as_str()))
            || [&names.kind, &names.list_kind]
                .iter()
                .any(|name| taken.kinds.contains(name.as_str()));
        if is_taken {
            return Err(format!("the federation has {} of its own there", kind.kind));
        }
        names.short_names.retain(|name| !taken.resources.contains(name.as_str()));
    }
    Ok(names)
}

impl Decision {
    /// The status that the definition is to have. `failure`: why it cannot be served although its names are free.
    pub(super) fn status(&self, crd: &Value, failure: Option<&str>, now: &str) -> Value {
        let mut status = if crd["status"].is_object() { crd["status"].clone() } else { json!({}) };
        status["acceptedNames"] = json!(self.names);
        let accepted = match &self.conflict {
            None => ("True", "NoConflicts", "no conflicts found"),
            Some((reason, message)) => ("False", *reason, message.as_str()),
        };
        let established = match failure {
            Some(failure) => ("False", "NotServable", failure),
            None if self.established => {
                ("True", "InitialNamesAccepted", "the initial names have been accepted")
            }
            None => ("False", "NotAccepted", "not all names are accepted"),
        };
        set_condition(&mut status, "NamesAccepted", accepted, now);
        set_condition(&mut status, "Established", established, now);
        if is_terminating(crd) {
            let going =
                ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
            set_condition(&mut status, "Terminating", going, now);
        }
        status
    }
}

fn conditions(crd: &Value) -> impl Iterator<Item = &Value> {
    crd["status"]["conditions"].as_array().into_iter().flatten()
}

/// Whether a condition of a definition is true.
pub(super) fn is_true(crd: &Value, kind: &str) -> bool {
    conditions(crd).any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn set_condition(
    status: &mut Value,
    kind: &str,
    (value, reason, message): (&str, &str, &str),
    now: &str,
) {
    let mut condition = json!({
        "type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(known) => {
            if known["status"] == value && known["lastTransitionTime"].is_string() {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(name: &str, created: &str, names: Value) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"group": "example.com", "names": names},
        })
    }

    fn widgets() -> Value {
        json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]})
    }

    /// The definitions once all that follows from them is told.
    fn told(mut crds: Vec<Value>, own: &[(String, Names)], now: &str) -> Vec<Value> {
        let decisions = decide(&crds, own);
        for (crd, decision) in crds.iter_mut().zip(decisions) {
            crd["status"] = decision.status(crd, None, now);
        }
        crds
    }

    fn condition<'a>(crd: &'a Value, kind: &str) -> &'a Value {
        conditions(crd).find(|condition| condition["type"] == kind).unwrap()
    }

    #[test]
    fn who_comes_first_has_the_names_until_it_goes() {
        let mut other = widgets();
        other["plural"] = json!("gadgets");
        other["singular"] = json!("gadget");
        other["listKind"] = json!("GadgetList");
        // Listed first by its name, but younger.
        let crds =
            vec![crd("gadgets", "2024-01-02", other), crd("widgets", "2024-01-01", widgets())];
        let crds = told(crds, &[], "t1");
        assert!(is_true(&crds[1], "NamesAccepted") && is_true(&crds[1], "Established"));
        assert_eq!(crds[1]["status"]["acceptedNames"], widgets());
        let refused = condition(&crds[0], "NamesAccepted");
        assert_eq!(refused["reason"], "KindConflict");
        assert_eq!(refused["message"], r#""Widget" is already in use, "w" is already in use"#);
        assert!(!is_true(&crds[0], "Established"));
        assert_eq!(crds[0]["status"]["acceptedNames"]["plural"], "gadgets");

        let again = told(crds.clone(), &[], "t2");
        assert_eq!(again, crds, "nothing changed, so nothing is told");

        let alone = told(vec![crds[0].clone()], &[], "t3");
        assert!(is_true(&alone[0], "NamesAccepted") && is_true(&alone[0], "Established"));
        assert_eq!(condition(&alone[0], "Established")["lastTransitionTime"], "t3");
    }

    #[test]
    fn what_is_established_stays_so_with_the_names_that_it_has() {
        let mut both = told(vec![crd("widgets", "1", widgets())], &[], "t");
        let gears =
            json!({"plural": "gears", "kind": "Gear", "listKind": "GearList", "shortNames": ["g"]});
        both = told([both, vec![crd("gears", "2", gears)]].concat(), &[], "t");
        both[1]["spec"]["names"]["shortNames"] = json!(["w", "gr"]);
        both = told(both, &[], "t");
        assert_eq!(condition(&both[1], "NamesAccepted")["reason"], "ShortNamesConflict");
        assert!(is_true(&both[1], "Established"));
        assert_eq!(both[1]["status"]["acceptedNames"]["shortNames"], json!(["g"]));
    }

    #[test]
    fn a_kind_of_the_server_itself_is_never_replaced() {
        let own = vec![("example.com".to_owned(), Names::read(&widgets()))];
        let crds = told(vec![crd("widgets", "1", widgets())], &own, "t");
        assert_eq!(condition(&crds[0], "NamesAccepted")["reason"], "PluralConflict");
        assert!(!is_true(&crds[0], "Established"));
        let elsewhere = vec![("example.org".to_owned(), Names::read(&widgets()))];
        let crds = told(vec![crd("widgets", "1", widgets())], &elsewhere, "t");
        assert!(is_true(&crds[0], "Established"));
    }

    #[test]
    fn a_definition_of_a_host_is_served_beside_our_kinds_and_never_in_the_place_of_one() {
        let own = vec![
            ("example.com".to_owned(), Names::read(&widgets())),
            ("example.org".to_owned(), Names::read(&json!({"plural": "things", "kind": "Thing"}))),
        ];
        let names = |plural: &str, kind: &str, short: &str| {
            let (singular, list) = (kind.to_lowercase(), format!("{kind}List"));
            json!({"plural": plural, "singular": singular, "kind": kind, "listKind": list, "shortNames": [short]})
        };
        let ours = Err("the federation has Widget of its own there".to_owned());
        for (group, names, wanted) in [
            ("example.com", names("gadgets", "Gadget", "g"), Ok(vec!["g".to_owned()])),
            // A short name that is ours stays ours.
            ("example.com", names("gadgets", "Gadget", "w"), Ok(vec![])),
            ("example.com", names("widgets", "Other", "o"), ours.clone()),
            ("example.com", names("others", "Widget", "o"), ours.clone()),
            ("example.com", names("widget", "Other", "o"), ours),
            ("example.org", names("widgets", "Widget", "w"), Ok(vec!["w".to_owned()])),
        ] {
            let mut crd = crd("it", "1", names.clone());
            crd["spec"]["group"] = json!(group);
            assert!(beside(&crd, &own).is_err(), "nobody has accepted its names");
            crd["status"] = json!({
                "acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}],
            });
            let served = beside(&crd, &own).map(|names| names.short_names);
            assert_eq!(served, wanted, "{names} in {group}");
        }
    }

    #[test]
    fn what_goes_or_cannot_be_served_says_so() {
        let mut going = crd("widgets", "1", widgets());
        going["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        let crds = told(vec![going.clone()], &[], "t");
        assert_eq!(condition(&crds[0], "Terminating")["reason"], "InstanceDeletionInProgress");
        let decisions = decide(&[going.clone()], &[]);
        going["status"] = decisions[0].status(&going, Some("why"), "t");
        assert_eq!(condition(&going, "Established")["message"], "why");
    }
}
