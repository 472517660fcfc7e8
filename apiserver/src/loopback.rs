//! The server's own way to its objects, for controllers that live in the same process.

use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, EventType, ListQuery, WatchEvent, Watcher};
use kubefed_storage::object::Object;
use serde_json::Value;

use crate::query::DeleteOptions;
use crate::registry::{Part, Resource, Route, Tracking, Write};
use crate::server::Server;

/// The pause before a watch that failed is begun anew.
const RETRY: Duration = Duration::from_millis(50);

/// Reads and writes past filters and handlers, with the same rules for objects.
#[derive(Clone)]
pub struct Loopback {
    server: Arc<Server>,
    manager: &'static str,
}

impl Loopback {
    /// Writes are recorded under `manager`.
    pub fn new(server: &Arc<Server>, manager: &'static str) -> Self {
        Loopback { server: Arc::clone(server), manager }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    fn resource(&self, group: &str, plural: &str) -> Result<Arc<Resource>, Status> {
        self.server.registry.resource(group, plural).ok_or_else(Status::unknown_resource)
    }

    /// One object, as the cache has it.
    pub async fn get(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Status> {
        let object = self.resource(group, plural)?.get(namespace, name, At::Any).await?;
        object.value().map_err(Status::internal)
    }

    /// The objects of a namespace, as the cache has them. One that can't be read keeps the others from nothing.
    pub async fn list(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
    ) -> Result<Vec<Value>, Status> {
        let resource = self.resource(group, plural)?;
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let query = ListQuery { prefix, start: None, at: At::Any };
        let list = resource.cacher.list(query).await.map_err(|error| resource.read_error(error))?;
        let read = |object: &Arc<Object>| {
            let value = object.value();
            value
                .inspect_err(|error| tracing::error!(plural, %object.key, %error, "passed over"))
                .ok()
        };
        Ok(list.iter().filter_map(read).collect())
    }

    /// Creates an object; that it is there already is fine.
    pub async fn create_if_missing(
        &self,
        group: &str,
        plural: &str,
        object: Value,
    ) -> Result<(), Status> {
        let route = Route::stored(self.resource(group, plural)?);
        let namespace = meta::namespace(&object).to_owned();
        match self.write(&route, Part::Main).create(&namespace, object, Tracking::Registry).await {
            Err(status) if !status.is_already_exists() => Err(status),
            _ => Ok(()),
        }
    }

    /// Changes an object, or its status alone; nothing is written if `change` leaves it as it is.
    pub async fn update(
        &self,
        group: &str,
        plural: &str,
        object: &Value,
        part: Part,
        change: impl Fn(&mut Value),
    ) -> Result<(), Status> {
        let route = Route::stored(self.resource(group, plural)?);
        let build = |live: &Value| {
            let mut new = live.clone();
            change(&mut new);
            Ok(new)
        };
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        self.write(&route, part).update(namespace, name, Tracking::Registry, build).await.map(drop)
    }

    /// Deletes an object; that it is gone already is fine.
    pub async fn delete(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let resource = self.resource(group, plural)?;
        match resource
            .delete(namespace, name, &DeleteOptions::default(), (self.server.clock)(), None)
            .await
        {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Calls `seen` with every object of a kind, now and when it changes, until the server ends or does not serve the
    /// kind any more.
    pub async fn follow<F>(
        &self,
        group: &str,
        plural: &str,
        mut seen: impl FnMut(Arc<Object>, bool) -> F,
    ) where
        F: Future<Output = ()>,
    {
        while let Some(mut watcher) = self.watch(group, plural).await {
            while let Some(event) = self.next(&mut watcher).await {
                if let Some(object) = event.object {
                    seen(object, event.kind == EventType::Deleted).await;
                }
            }
        }
    }

    /// Calls `changed` now and when objects of a kind have changed, as long. Changes that are there together are one: a
    /// start with a hundred objects is one call, not a hundred.
    pub(crate) async fn follow_all<F>(
        &self,
        group: &str,
        plural: &str,
        mut changed: impl FnMut() -> F,
    ) where
        F: Future<Output = ()>,
    {
        while let Some(mut watcher) = self.watch(group, plural).await {
            loop {
                while watcher.try_next().is_some() {}
                changed().await;
                if self.next(&mut watcher).await.is_none() {
                    break;
                }
            }
        }
    }

    /// The next event; `None` when the watch is over or the server ends.
    pub(crate) async fn next(&self, watcher: &mut Watcher) -> Option<WatchEvent> {
        tokio::select! {
            () = self.server.token.cancelled() => None,
            event = watcher.next() => event,
        }
    }

    /// A new watch, as soon as there can be one; `None` when the server ends or does not serve the kind. It begins with
    /// all that is there, and a bookmark behind that; what went before it began is not told.
    pub(crate) async fn watch(&self, group: &str, plural: &str) -> Option<Watcher> {
        while !self.server.token.is_cancelled() {
            match self.server.registry.resource(group, plural)?.watch().await {
                Ok(watcher) => return Some(watcher),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        None
    }

    fn write<'a>(&'a self, route: &'a Route, part: Part) -> Write<'a> {
        self.server.write(self.manager, route, part)
    }
}
