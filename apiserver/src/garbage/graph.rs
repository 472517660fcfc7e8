//! Who depends on whom, as far as the watches have told it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_storage::Revision;
use kubefed_storage::object::Object;
use serde_json::Value;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) resource: GroupResource,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Place {
    pub(super) fn of(resource: &GroupResource, object: &Object) -> Self {
        Place {
            resource: resource.clone(),
            namespace: object.index.namespace.to_string(),
            name: object.index.name.to_string(),
        }
    }
}

/// A reference from a dependent to one of its owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) blocks: bool,
}

/// An object that is there, has changed, or is gone.
pub(super) struct Change {
    pub(super) place: Place,
    pub(super) gone: bool,
    /// It was there when its kind began to be followed: others of its kind that are older may be still to come.
    pub(super) initial: bool,
    pub(super) object: Arc<Object>,
}

pub(super) enum News {
    Object(Change),
    /// The objects of a kind are followed from this revision on. What went before was not seen.
    Begun(GroupResource, Revision),
    /// What failed is to be done once more.
    Again(Work),
}

/// What there may be to do after some news.
pub(super) enum Work {
    /// An object changed, and whether its owners are others than before.
    Object(Change, bool),
    Kind(GroupResource),
}

/// Who depends on whom, by uid.
#[derive(Default)]
pub(super) struct Graph {
    pub(super) owners: HashMap<Place, Vec<Owner>>,
    dependents: HashMap<String, HashSet<Place>>,
    /// Of each kind the revision up to which all its changes are in here; none while its first objects are to come.
    seen: HashMap<GroupResource, Revision>,
}

impl Graph {
    /// Takes in what there is to know, and says what is to be done for it.
    pub(super) fn learn(&mut self, news: News) -> Work {
        match news {
            News::Object(change) => {
                let owners = if change.gone { Vec::new() } else { owners_of(&change.object) };
                let is_new = !owners.is_empty() && self.owners.get(&change.place) != Some(&owners);
                self.set(&change.place, owners);
                if change.initial {
                    self.seen.remove(&change.place.resource);
                } else {
                    self.seen.insert(change.place.resource.clone(), change.object.revision);
                }
                Work::Object(change, is_new)
            }
            News::Begun(kind, revision) => {
                self.seen.insert(kind.clone(), revision);
                Work::Kind(kind)
            }
            News::Again(work) => work,
        }
    }

    /// The revision up to which all changes of a kind are in here.
    pub(super) fn seen(&self, kind: &GroupResource) -> Revision {
        self.seen.get(kind).copied().unwrap_or(0)
    }

    fn set(&mut self, place: &Place, owners: Vec<Owner>) {
        for old in self.owners.remove(place).unwrap_or_default() {
            if let Some(dependents) = self.dependents.get_mut(&old.uid) {
                dependents.remove(place);
                if dependents.is_empty() {
                    self.dependents.remove(&old.uid);
                }
            }
        }
        for owner in &owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(place.clone());
        }
        if !owners.is_empty() {
            self.owners.insert(place.clone(), owners);
        }
    }

    pub(super) fn dependents_of(&self, uid: &str) -> HashSet<Place> {
        self.dependents.get(uid).cloned().unwrap_or_default()
    }
}

/// The owners of an object. One that can't be read has none that anybody could act on.
pub(super) fn owners_of(object: &Object) -> Vec<Owner> {
    if object.index.owners.is_empty() {
        return Vec::new();
    }
    let value = object.value().unwrap_or_else(|error| {
        tracing::error!(key = %object.key, %error, "its owners cannot be read");
        Value::Null
    });
    let text = |reference: &Value, field: &str| reference[field].as_str().unwrap_or("").to_owned();
    let references = value["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .map(|reference| Owner {
            api_version: text(reference, "apiVersion"),
            kind: text(reference, "kind"),
            name: text(reference, "name"),
            uid: text(reference, "uid"),
            blocks: reference["blockOwnerDeletion"] == true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        Place {
            resource: GroupResource { group: "apps".into(), resource: "replicasets".into() },
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    fn owner(uid: &str) -> Owner {
        Owner {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: uid.into(),
            uid: uid.into(),
            blocks: true,
        }
    }

    #[test]
    fn the_graph_forgets_what_no_longer_depends() {
        let mut graph = Graph::default();
        graph.set(&place("a"), vec![owner("1"), owner("2")]);
        graph.set(&place("b"), vec![owner("1")]);
        assert_eq!(graph.dependents_of("1").len(), 2);
        graph.set(&place("a"), vec![owner("2")]);
        assert_eq!(graph.dependents_of("1"), HashSet::from([place("b")]));
        graph.set(&place("b"), Vec::new());
        graph.set(&place("a"), Vec::new());
        assert!(graph.dependents.is_empty() && graph.owners.is_empty());
    }
}
