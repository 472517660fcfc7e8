//! One stored kind: its objects by namespace and name, read through the watch cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::{GroupKind, GroupResource};
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{self, At, Cacher, WatchFrom, WatchQuery, Watcher};
use kubefed_storage::object::Object;
use kubefed_storage::{Entry, Revision, Store};
use serde_json::Value;
use tokio::time::Instant;

/// How long a watch of the server's own lasts before it is begun anew.
const WATCH: Duration = Duration::from_secs(3600);

/// A kind with its place in the store and its watch cache.
pub struct Resource {
    pub definition: Definition,
    pub cacher: Arc<Cacher>,
    pub(super) prefix: String,
    pub(super) store: Arc<dyn Store>,
}

impl Resource {
    /// The key of an object below the resource's prefix. Names are checked as path segments before they come here.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
    }

    /// The resource's name in errors.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.definition.group.clone(),
            resource: self.definition.plural.clone(),
        }
    }

    /// The kind's name in validation errors.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.definition.group.clone(), kind: self.definition.kind.clone() }
    }

    /// One object, or 404.
    pub async fn get(&self, namespace: &str, name: &str, at: At) -> Result<Arc<Object>, Status> {
        let key = self.key(namespace, name);
        let object = self.cacher.get(&key, at).await.map_err(|error| self.read_error(error))?;
        object.ok_or_else(|| Status::not_found(&self.group_resource(), name))
    }

    /// A watch of every object: those that the cache has, a bookmark behind them, then what changes.
    pub(crate) async fn watch(&self) -> Result<Watcher, cacher::Error> {
        let query = WatchQuery {
            prefix: String::new(),
            from: WatchFrom::State(At::Any),
            filter: None,
            bookmarks: false,
            initial_events_end: true,
            deadline: Instant::now() + WATCH,
        };
        self.cacher.watch(query).await
    }

    /// One object as the store has it now, past the cache: for writers that lost a race.
    pub(super) async fn get_from_store(
        &self,
        key: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        let full = format!("{}{key}", self.prefix);
        let (entry, _) = self.store.get(&full).await.map_err(|error| self.store_error(error))?;
        let entry = entry.ok_or_else(|| Status::not_found(&self.group_resource(), name))?;
        self.object(&entry)
    }

    /// The object that a store entry holds.
    pub(super) fn object(&self, entry: &Entry) -> Result<Arc<Object>, Status> {
        let relative = Entry { key: entry.key[self.prefix.len()..].into(), ..entry.clone() };
        Object::from_entry(&relative, &self.definition.selectable_fields)
            .map(Arc::new)
            .map_err(|error| Status::internal(format!("{}: {error}", entry.key)))
    }

    /// The object as it stands in the store after a write of `value` at `revision`.
    pub(super) fn written(
        &self,
        key: &str,
        value: Bytes,
        created: Revision,
        revision: Revision,
    ) -> Result<Arc<Object>, Status> {
        let entry =
            Entry { key: key.into(), value, create_revision: created, mod_revision: revision };
        Object::from_entry(&entry, &self.definition.selectable_fields)
            .map(Arc::new)
            .map_err(|error| Status::internal(format!("{key}: {error}")))
    }

    /// A cache's refusal as a client sees it.
    pub fn read_error(&self, error: cacher::Error) -> Status {
        match error {
            cacher::Error::Expired { .. } => {
                Status::expired("The resourceVersion for the provided list is too old.")
            }
            cacher::Error::TooLargeRevision { asked, current } => {
                Status::resource_version_too_large(asked, current)
            }
            cacher::Error::NotReady => Status::too_many_requests("storage is (re)initializing", 1),
            cacher::Error::Store(error) => self.store_error(error),
        }
    }

    /// The store's refusal as a client sees it. A write whose outcome is not known says so: it may have happened.
    pub(super) fn store_error(&self, error: kubefed_storage::Error) -> Status {
        use kubefed_storage::Error;
        match error {
            Error::TooLarge { .. } => Status::too_large_object(error.to_string()),
            Error::Compacted { .. } => {
                Status::expired("The resourceVersion for the provided list is too old.")
            }
            Error::FutureRevision { current } => Status::resource_version_too_large(0, current),
            Error::UnknownOutcome(_) => {
                Status::timeout("the store did not answer in time; the write may have happened")
            }
            error if error.is_retryable() => {
                tracing::warn!(%error, resource = %self.group_resource(), "the store is not available");
                Status::server_timeout(&self.group_resource(), "storage", 2)
            }
            error => {
                tracing::error!(%error, resource = %self.group_resource(), "the store failed");
                Status::internal(error.to_string())
            }
        }
    }
}

/// The stored form of a tree: canonical JSON without `metadata.resourceVersion`, `apiVersion` before all other keys.
pub(super) fn stored_form(object: &mut Value) -> Result<Bytes, Status> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
    }
    let Some(map) = object.as_object() else {
        return Err(Status::internal("the object is not a JSON object"));
    };
    serde_json::to_vec(&ApiVersionFirst(map)).map(Bytes::from).map_err(Status::internal)
}

/// Writes a map in its order, but for `apiVersion`, which comes first (a ClusterRole has a field that sorts before it).
struct ApiVersionFirst<'a>(&'a serde_json::Map<String, Value>);

impl serde::Serialize for ApiVersionFirst<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.0.get_key_value("apiVersion");
        let rest = self.0.iter().filter(|(key, _)| *key != "apiVersion");
        serializer.collect_map(first.into_iter().chain(rest))
    }
}
