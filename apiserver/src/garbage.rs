//! The garbage collector of a standalone server: dependents go when their owners are gone, and the `foregroundDeletion`
//! and `orphan` finalizers are honoured. After `pkg/controller/garbagecollector` of Kubernetes.
//!
//! One task owns the graph; a task for each kind feeds it. The graph holds only objects that have owners, and of those
//! only names, so its cost is that of the references, not of the objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::gvk::{GroupResource, GroupVersion};
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, EventType};
use kubefed_storage::object::Object;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::loopback::Loopback;
use crate::query::{DeleteOptions, Propagation};
use crate::registry::{Part, Route, Tracking};
use crate::server::{MANAGER, Server};

/// Events under way from the watchers to the graph. A full queue slows the watchers, which the cache bounds in turn.
const QUEUE: usize = 1024;

/// How long a failed step waits. As often the kinds are compared with the followed ones, beside when they change: who
/// follows one that went and came back may just have ended.
const LOOK: Duration = Duration::from_millis(500);

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    resource: GroupResource,
    namespace: String,
    name: String,
}

/// A reference from a dependent to one of its owners.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    blocks: bool,
}

struct Change {
    place: Place,
    uid: String,
    gone: bool,
    object: Arc<Object>,
}

enum News {
    Object(Change),
    /// The objects of a kind are followed from now on. What went before was not seen.
    Begun(GroupResource),
}

/// Who depends on whom, by uid.
#[derive(Default)]
struct Graph {
    owners: HashMap<Place, Vec<Owner>>,
    dependents: HashMap<String, HashSet<Place>>,
}

impl Graph {
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

    fn dependents_of(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }
}

async fn either(one: impl Future, other: impl Future) {
    tokio::select! {
        _ = one => {}
        _ = other => {}
    }
}

/// Collects until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let (changes, mut queue) = mpsc::channel(QUEUE);
    let loopback = Loopback::new(&server, MANAGER);
    let mut followers: HashMap<GroupResource, JoinHandle<()>> = HashMap::new();
    let mut graph = Graph::default();
    let (mut kinds, mut look) = (server.registry.changes(), tokio::time::interval(LOOK));
    loop {
        tokio::select! {
            () = server.token.cancelled() => return,
            () = either(kinds.changed(), look.tick()) => {
                for resource in server.registry.catalog().iter() {
                    let kind = resource.group_resource();
                    // A kind that went may have come back.
                    if followers.get(&kind).is_none_or(JoinHandle::is_finished) {
                        let follower = follow(loopback.clone(), kind.clone(), changes.clone());
                        followers.insert(kind, server.tracker.spawn(follower));
                    }
                }
            }
            news = queue.recv() => {
                let Some(news) = news else { return };
                let outcome = match &news {
                    News::Object(change) => take_in(&server, &mut graph, change).await,
                    News::Begun(kind) => look_after(&server, &graph, kind).await,
                };
                if let Err(status) = outcome
                    && !status.is_not_found()
                {
                    tracing::warn!(%status, "garbage is left for now");
                    let changes = changes.clone();
                    server.tracker.spawn(async move {
                        tokio::time::sleep(LOOK).await;
                        let _closed_at_the_end = changes.send(news).await;
                    });
                }
            }
        }
    }
}

async fn follow(loopback: Loopback, kind: GroupResource, changes: mpsc::Sender<News>) {
    loopback
        .follow_events(&kind.group, &kind.resource, |event| {
            let news = match event.object {
                None => News::Begun(kind.clone()),
                Some(object) => News::Object(Change {
                    place: Place {
                        resource: kind.clone(),
                        namespace: object.index.namespace.to_string(),
                        name: object.index.name.to_string(),
                    },
                    uid: object.index.uid.to_string(),
                    gone: event.kind == EventType::Deleted,
                    object,
                }),
            };
            let changes = &changes;
            async move {
                let _closed_at_the_end = changes.send(news).await;
            }
        })
        .await;
}

/// Looks after all whose owners are of a kind.
async fn look_after(server: &Server, graph: &Graph, kind: &GroupResource) -> Result<(), Status> {
    let depends = |place: &Place, owners: &[Owner]| {
        let mut kinds = owners.iter().filter_map(|o| locate(server, o, &place.namespace));
        kinds.any(|(route, _)| route.resource.group_resource() == *kind)
    };
    for (place, _) in graph.owners.iter().filter(|(place, owners)| depends(place, owners)) {
        match collect(server, graph, place, None).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

async fn take_in(server: &Server, graph: &mut Graph, change: &Change) -> Result<(), Status> {
    let owners = if change.gone || change.object.index.owners.is_empty() {
        Vec::new()
    } else {
        owners_of(&change.object.value().map_err(Status::internal)?)
    };
    let is_new = !owners.is_empty() && graph.owners.get(&change.place) != Some(&owners);
    graph.set(&change.place, owners);
    if change.gone {
        for dependent in graph.dependents_of(&change.uid) {
            collect(server, graph, &dependent, Some(&change.uid)).await?;
        }
        // A dependent that is gone may have been the last that its owner waited for.
        for owner in owners_of(&change.object.value().map_err(Status::internal)?) {
            release_owner(server, graph, &owner, &change.place.namespace).await?;
        }
        return Ok(());
    }
    if is_new {
        collect(server, graph, &change.place, None).await?;
    }
    if change.object.index.deletion_timestamp.is_some() && change.object.index.has_finalizers {
        let route = route_of(server, &change.place.resource)?;
        finish_deletion(server, graph, &route, &change.object).await?;
    }
    Ok(())
}

/// Deletes a dependent none of whose owners is left; takes references to owners that are gone off another.
/// The owner `went` is known to be gone, whether or not its kind is still served.
async fn collect(
    server: &Server,
    graph: &Graph,
    place: &Place,
    went: Option<&str>,
) -> Result<(), Status> {
    let Some(owners) = graph.owners.get(place) else { return Ok(()) };
    let mut gone = Vec::new();
    for owner in owners {
        if went == Some(owner.uid.as_str()) {
            gone.push(owner.uid.as_str());
            continue;
        }
        match exists(server, owner, &place.namespace).await? {
            Existence::Gone => gone.push(owner.uid.as_str()),
            // What this server does not serve may well exist elsewhere: left alone.
            Existence::Here | Existence::Unknown => {}
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let route = route_of(server, &place.resource)?;
    let live = route.resource.get(&place.namespace, &place.name, At::Latest).await?;
    if gone.len() == owners.len() {
        let options =
            DeleteOptions { uid: Some(live.index.uid.to_string()), ..DeleteOptions::default() };
        route
            .resource
            .delete(&place.namespace, &place.name, &options, (server.clock)(), None)
            .await?;
        return Ok(());
    }
    without_owners(server, &route, place, |uid| gone.contains(&uid)).await
}

/// Goes on with the deletion of an owner as its finalizer asks.
async fn finish_deletion(
    server: &Server,
    graph: &Graph,
    route: &Route,
    owner: &Object,
) -> Result<(), Status> {
    let value = owner.value().map_err(Status::internal)?;
    let has = |finalizer: &str| meta::finalizers(&value).any(|f| f == finalizer);
    let dependents = graph.dependents_of(&owner.index.uid);
    if has(ORPHAN) {
        for place in dependents {
            let route = route_of(server, &place.resource)?;
            without_owners(server, &route, &place, |uid| uid == &*owner.index.uid).await?;
        }
        return without_finalizer(server, route, owner, ORPHAN).await;
    }
    if !has(FOREGROUND) {
        return Ok(());
    }
    let mut blocked = false;
    for place in dependents {
        let blocks = graph
            .owners
            .get(&place)
            .into_iter()
            .flatten()
            .any(|o| o.uid == *owner.index.uid && o.blocks);
        let resource = route_of(server, &place.resource)?.resource;
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        match resource.delete(&place.namespace, &place.name, &options, (server.clock)(), None).await
        {
            Ok(_) => blocked |= blocks,
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    if blocked { Ok(()) } else { without_finalizer(server, route, owner, FOREGROUND).await }
}

/// Lets an owner go that waits in the foreground for its last dependent.
async fn release_owner(
    server: &Server,
    graph: &Graph,
    owner: &Owner,
    namespace: &str,
) -> Result<(), Status> {
    let Some((route, namespace)) = locate(server, owner, namespace) else { return Ok(()) };
    match route.resource.get(&namespace, &owner.name, At::Latest).await {
        Ok(object)
            if *object.index.uid == *owner.uid && object.index.deletion_timestamp.is_some() =>
        {
            finish_deletion(server, graph, &route, &object).await
        }
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status),
    }
}

enum Existence {
    Here,
    Gone,
    Unknown,
}

async fn exists(server: &Server, owner: &Owner, namespace: &str) -> Result<Existence, Status> {
    let Some((route, namespace)) = locate(server, owner, namespace) else {
        return Ok(Existence::Unknown);
    };
    let is_owner = |object: &Object| *object.index.uid == *owner.uid;
    match route.resource.get(&namespace, &owner.name, At::Any).await {
        Ok(object) if is_owner(&object) => return Ok(Existence::Here),
        Err(status) if !status.is_not_found() => return Err(status),
        _ => {}
    }
    match route.resource.get(&namespace, &owner.name, At::Latest).await {
        Ok(object) if is_owner(&object) => Ok(Existence::Here),
        Ok(_) => Ok(Existence::Gone),
        Err(status) if status.is_not_found() => Ok(Existence::Gone),
        Err(status) => Err(status),
    }
}

/// The kind of an owner and the namespace it is in: the dependent's, or none for a cluster-scoped kind.
fn locate(server: &Server, owner: &Owner, namespace: &str) -> Option<(Route, String)> {
    let group_version: GroupVersion = owner.api_version.parse().ok()?;
    let route = server.registry.catalog().kind(&group_version, &owner.kind)?.clone();
    let namespace = if route.resource.definition.namespaced { namespace } else { "" };
    Some((route, namespace.to_owned()))
}

fn route_of(server: &Server, resource: &GroupResource) -> Result<Route, Status> {
    let resource = server
        .registry
        .resource(&resource.group, &resource.resource)
        .ok_or_else(Status::unknown_resource)?;
    Ok(Route::stored(resource))
}

async fn without_owners(
    server: &Server,
    route: &Route,
    place: &Place,
    gone: impl Fn(&str) -> bool,
) -> Result<(), Status> {
    server
        .write(MANAGER, route, Part::Main)
        .update(&place.namespace, &place.name, Tracking::Registry, |live| {
            let mut new = live.clone();
            if let Some(references) = new["metadata"]["ownerReferences"].as_array_mut() {
                references.retain(|reference| !reference["uid"].as_str().is_some_and(&gone));
            }
            Ok(new)
        })
        .await
        .map(drop)
}

async fn without_finalizer(
    server: &Server,
    route: &Route,
    owner: &Object,
    finalizer: &str,
) -> Result<(), Status> {
    server
        .write(MANAGER, route, Part::Main)
        .update(&owner.index.namespace, &owner.index.name, Tracking::Registry, |live| {
            let mut new = live.clone();
            let rest: Vec<&str> = meta::finalizers(live).filter(|f| *f != finalizer).collect();
            new["metadata"]["finalizers"] = json!(rest);
            Ok(new)
        })
        .await
        .map(drop)
}

fn owners_of(object: &Value) -> Vec<Owner> {
    let text = |reference: &Value, field: &str| reference[field].as_str().unwrap_or("").to_owned();
    let references = object["metadata"]["ownerReferences"].as_array();
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
        assert_eq!(graph.dependents_of("1"), [place("b")]);
        graph.set(&place("b"), Vec::new());
        graph.set(&place("a"), Vec::new());
        assert!(graph.dependents.is_empty() && graph.owners.is_empty());
    }
}
