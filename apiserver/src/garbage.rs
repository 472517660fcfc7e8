//! The garbage collector of a standalone server: dependents go when their owners are gone, and the `foregroundDeletion`
//! and `orphan` finalizers are honoured. After `pkg/controller/garbagecollector` of Kubernetes.
//!
//! One task owns the graph; a task for each kind feeds it. The graph holds only objects that have owners, and of those
//! only names, so its cost is that of the references, not of the objects.
//!
//! The graph lags behind, and of each kind in its own way. So it only says where to look: before an owner is let go,
//! all that changed up to its deletion and is not in the graph yet is looked through too, and nothing is deleted but by
//! what its own references say now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
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

mod graph;

use graph::{Change, Graph, News, Owner, Place, Work, owners_of};

/// Events under way from the watchers to the graph. A full queue slows the watchers, which the cache bounds in turn.
const QUEUE: usize = 1024;

/// How long a failed step waits. As often the kinds are compared with the followed ones, beside when they change: who
/// follows one that went and came back may just have ended.
const LOOK: Duration = Duration::from_millis(500);

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

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
                let work = graph.learn(news);
                let outcome = match &work {
                    Work::Object(change, is_new) => follow_up(&server, &graph, change, *is_new).await,
                    Work::Kind(kind) => look_after(&server, &graph, kind).await,
                };
                if let Err(status) = outcome
                    && !status.is_not_found()
                {
                    tracing::warn!(%status, "garbage is left for now");
                    let changes = changes.clone();
                    server.tracker.spawn(async move {
                        tokio::time::sleep(LOOK).await;
                        let _closed_at_the_end = changes.send(News::Again(work)).await;
                    });
                }
            }
        }
    }
}

async fn follow(loopback: Loopback, kind: GroupResource, changes: mpsc::Sender<News>) {
    while let Some(mut watcher) = loopback.watch(&kind.group, &kind.resource).await {
        let mut initial = true;
        while let Some(event) = loopback.next(&mut watcher).await {
            let news = match event.object {
                None => {
                    initial = false;
                    News::Begun(kind.clone(), event.revision)
                }
                Some(object) => News::Object(Change {
                    place: Place::of(&kind, &object),
                    gone: event.kind == EventType::Deleted,
                    initial,
                    object,
                }),
            };
            let _closed_at_the_end = changes.send(news).await;
        }
    }
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

async fn follow_up(
    server: &Server,
    graph: &Graph,
    change: &Change,
    is_new: bool,
) -> Result<(), Status> {
    let Change { place, object, .. } = change;
    if change.gone {
        for dependent in graph.dependents_of(&object.index.uid) {
            settle(collect(server, graph, &dependent, Some(&object.index.uid)).await)?;
        }
        // A dependent that is gone may have been the last that its owner waited for.
        for owner in owners_of(object) {
            release_owner(server, graph, &owner, &place.namespace).await?;
        }
        return Ok(());
    }
    if is_new {
        settle(collect(server, graph, place, None).await)?;
    }
    if object.index.deletion_timestamp.is_some() && object.index.has_finalizers {
        let route = route_of(server, &place.resource)?;
        finish_deletion(server, graph, &route, object).await?;
    }
    Ok(())
}

/// What is gone by itself needs nothing more.
fn settle(outcome: Result<(), Status>) -> Result<(), Status> {
    outcome.or_else(|status| if status.is_not_found() { Ok(()) } else { Err(status) })
}

/// Deletes a dependent none of whose owners is left; takes references to owners that are gone off another.
/// The owner `went` is known to be gone, whether or not its kind is still served.
async fn collect(
    server: &Server,
    graph: &Graph,
    place: &Place,
    went: Option<&str>,
) -> Result<(), Status> {
    let Some(known) = graph.owners.get(place) else { return Ok(()) };
    if absent(server, known, &place.namespace, went).await?.is_empty() {
        return Ok(());
    }
    // It may have been let go since the graph heard of it: what it says itself decides.
    let route = route_of(server, &place.resource)?;
    let live = route.resource.get(&place.namespace, &place.name, At::Latest).await?;
    let owners = owners_of(&live);
    let gone = absent(server, &owners, &place.namespace, went).await?;
    if gone.is_empty() {
        return Ok(());
    }
    if gone.len() < owners.len() {
        return without_owners(server, &route, place, |uid| gone.contains(&uid)).await;
    }
    delete_as_it_is(server, &route, place, &live, None).await
}

/// The uids of the owners that are gone.
async fn absent<'a>(
    server: &Server,
    owners: &'a [Owner],
    namespace: &str,
    went: Option<&str>,
) -> Result<Vec<&'a str>, Status> {
    let mut gone = Vec::new();
    for owner in owners {
        // What this server does not serve may well exist elsewhere: it counts as being there.
        if went == Some(owner.uid.as_str())
            || matches!(exists(server, owner, namespace).await?, Existence::Gone)
        {
            gone.push(owner.uid.as_str());
        }
    }
    Ok(gone)
}

/// Deletes an object unless it has changed meanwhile.
async fn delete_as_it_is(
    server: &Server,
    route: &Route,
    place: &Place,
    live: &Object,
    propagation: Option<Propagation>,
) -> Result<(), Status> {
    let options = DeleteOptions {
        uid: Some(live.index.uid.to_string()),
        resource_version: Some(live.revision.to_string()),
        propagation,
        ..DeleteOptions::default()
    };
    let now = (server.clock)();
    route.resource.delete(&place.namespace, &place.name, &options, now, None).await.map(drop)
}

/// Where what depends on an owner may be: what the graph knows, and what changed since up to the owner's revision.
async fn dependents_of(
    server: &Server,
    graph: &Graph,
    owner: &Object,
) -> Result<HashSet<Place>, Status> {
    let catalog = server.registry.catalog();
    let late = try_join_all(catalog.iter().map(async |resource| {
        let kind = resource.group_resource();
        let changed = resource.cacher.changed(graph.seen(&kind), owner.revision).await;
        let changed = changed.map_err(|error| resource.read_error(error))?;
        let depends = |object: &Object| object.index.owners.contains(&owner.index.uid);
        let places = changed.iter().filter(|object| depends(object));
        Ok::<_, Status>(places.map(|object| Place::of(&kind, object)).collect::<Vec<_>>())
    }));
    let late = late.await?.into_iter().flatten();
    Ok(graph.dependents_of(&owner.index.uid).into_iter().chain(late).collect())
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
    if has(ORPHAN) {
        for place in dependents_of(server, graph, owner).await? {
            let route = route_of(server, &place.resource)?;
            let uid = &*owner.index.uid;
            settle(without_owners(server, &route, &place, |gone| gone == uid).await)?;
        }
        return without_finalizer(server, route, owner, ORPHAN).await;
    }
    if !has(FOREGROUND) {
        return Ok(());
    }
    let mut blocked = false;
    for place in dependents_of(server, graph, owner).await? {
        blocked |= delete_before(server, owner, &place).await?;
    }
    if blocked { Ok(()) } else { without_finalizer(server, route, owner, FOREGROUND).await }
}

/// Deletes a dependent before its owner goes; whether the owner has to wait for that.
async fn delete_before(server: &Server, owner: &Object, place: &Place) -> Result<bool, Status> {
    let route = route_of(server, &place.resource)?;
    let live = match route.resource.get(&place.namespace, &place.name, At::Latest).await {
        Err(status) if status.is_not_found() => return Ok(false),
        live => live?,
    };
    let owners = owners_of(&live);
    let Some(reference) = owners.iter().find(|o| o.uid == *owner.index.uid) else {
        return Ok(false);
    };
    match delete_as_it_is(server, &route, place, &live, Some(Propagation::Foreground)).await {
        Err(status) if status.is_not_found() => Ok(false),
        outcome => outcome.map(|()| reference.blocks),
    }
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
            let Some(metadata) = new["metadata"].as_object_mut() else { return Ok(new) };
            if let Some(references) =
                metadata.get_mut("ownerReferences").and_then(Value::as_array_mut)
            {
                references.retain(|reference| !reference["uid"].as_str().is_some_and(&gone));
                if references.is_empty() {
                    metadata.remove("ownerReferences");
                }
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
