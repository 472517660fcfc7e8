//! The server's own way to its objects, for controllers that live in the same process.

use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, EventType, ListQuery, WatchFrom, WatchQuery, Watcher};
use kubefed_storage::object::Object;
use serde_json::Value;
use tokio::time::Instant;

use crate::query::DeleteOptions;
use crate::registry::{Part, Resource, Route, Tracking, Write};
use crate::server::Server;

/// How long a watch lasts before it is begun anew, and the pause before that when it fails.
const WATCH: Duration = Duration::from_secs(3600);
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

    /// The objects of a namespace, as the cache has them.
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
        list.iter().map(|object| object.value().map_err(Status::internal)).collect()
    }

    /// Creates an object; that it is there already is fine.
    pub async fn create_if_missing(
        &self,
        group: &str,
        plural: &str,
        object: Value,
    ) -> Result<(), Status> {
        let route = Route { resource: self.resource(group, plural)?, version: 0 };
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
        let route = Route { resource: self.resource(group, plural)?, version: 0 };
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
            .delete(namespace, name, &DeleteOptions::default(), (self.server.clock)())
            .await
        {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Calls `seen` with every object of a kind, now and when it changes, until the server ends.
    pub async fn follow<F>(
        &self,
        group: &str,
        plural: &str,
        mut seen: impl FnMut(Arc<Object>, bool) -> F,
    ) where
        F: Future<Output = ()>,
    {
        while !self.server.token.is_cancelled() {
            let Ok(mut watcher) = self.watch(group, plural).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            loop {
                let event = tokio::select! {
                    () = self.server.token.cancelled() => return,
                    event = watcher.next() => event,
                };
                let Some(event) = event else { break };
                if let Some(object) = event.object {
                    seen(object, event.kind == EventType::Deleted).await;
                }
            }
        }
    }

    async fn watch(&self, group: &str, plural: &str) -> Result<Watcher, Status> {
        let resource = self.resource(group, plural)?;
        let query = WatchQuery {
            prefix: String::new(),
            from: WatchFrom::State(At::Any),
            filter: None,
            bookmarks: false,
            initial_events_end: false,
            deadline: Instant::now() + WATCH,
        };
        resource.cacher.watch(query).await.map_err(|error| resource.read_error(error))
    }

    fn write<'a>(&'a self, route: &'a Route, part: Part) -> Write<'a> {
        Write {
            route,
            part,
            manager: self.manager,
            now: (self.server.clock)(),
            dry_run: false,
            random: self.server.random,
            warn: &|_| {},
        }
    }
}
