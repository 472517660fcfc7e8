//! Objects of a collection, kept as a list and a watch tell them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::meta;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Error, JSON, METADATA, METADATA_LIST};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// The namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn of(object: &Value) -> Self {
        Key { namespace: meta::namespace(object).into(), name: meta::name(object).into() }
    }
}

/// Which collection is kept.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub path: String,
    /// More query parameters, each with its `&`.
    pub query: String,
    /// Whether metadata is enough.
    pub metadata: bool,
}

/// Keeps an object but for who set which field: nobody here asks for that, and it is half of the object.
pub(crate) fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// A kept collection. `T` is what is remembered of an object.
pub struct Cache<T> {
    objects: RwLock<BTreeMap<Key, Arc<T>>>,
    filled: watch::Sender<bool>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Cache { objects: RwLock::default(), filled: watch::Sender::new(false) }
    }
}

impl<T> Cache<T> {
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.objects.read().get(key).cloned()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.objects.read().keys().cloned().collect()
    }

    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        let first = Key { namespace: namespace.to_owned(), name: String::new() };
        let objects = self.objects.read();
        let from_there = objects.range(first..).map(|(key, _)| key);
        from_there.take_while(|key| key.namespace == namespace).cloned().collect()
    }

    pub fn values(&self) -> Vec<Arc<T>> {
        self.objects.read().values().cloned().collect()
    }

    /// Waits for the first list.
    pub async fn wait_filled(&self) {
        // The sender lives as long as the cache.
        let mut filled = self.filled.subscribe();
        let _filled = filled.wait_for(|filled| *filled).await;
    }

    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Keeps the collection until `token` is cancelled. `changed` is told the key of whatever came, changed or went.
    pub async fn follow(
        &self,
        client: &Client,
        source: &Source,
        keep: impl Fn(Value) -> T,
        changed: impl Fn(&Key),
        token: &CancellationToken,
    ) {
        tokio::select! {
            () = token.cancelled() => {}
            () = self.follow_for_ever(client, source, keep, changed) => {}
        }
    }

    async fn follow_for_ever(
        &self,
        client: &Client,
        source: &Source,
        keep: impl Fn(Value) -> T,
        changed: impl Fn(&Key),
    ) {
        let mut pause = FIRST_PAUSE;
        // What has been seen; where the next watch goes on.
        let mut from = None;
        loop {
            let (began, watched) = (Instant::now(), from.is_some());
            let outcome = match &mut from {
                None => {
                    let filled = self.fill(client, source, &keep, &changed).await;
                    filled.map(|version| from = Some(version))
                }
                Some(from) => self.watch(client, source, from, &keep, &changed).await,
            };
            match outcome {
                Ok(()) => {
                    if began.elapsed() > LAST_PAUSE || !watched {
                        pause = FIRST_PAUSE;
                    } else {
                        // A server that ends every watch at once must not keep us busy with that.
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
                Err(error) => {
                    // A server that cannot be reached, or is just starting, says nothing of what has been seen: another
                    // goes on from there, and not everybody lists everything anew.
                    if !error.is_outage() {
                        from = None;
                    }
                    if !error.is_expired() {
                        tracing::warn!(path = source.path, %error, "cannot be followed now");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
            }
        }
    }

    async fn fill(
        &self,
        client: &Client,
        source: &Source,
        keep: impl Fn(Value) -> T,
        changed: impl Fn(&Key),
    ) -> Result<String, Error> {
        let accept = if source.metadata { METADATA_LIST } else { JSON };
        let mut found = BTreeMap::new();
        let version = client
            .list(&source.path, &source.query, accept, |object| {
                found.insert(Key::of(&object), Arc::new(keep(object)));
            })
            .await?;
        let mut told: Vec<Key> = found.keys().cloned().collect();
        let before = std::mem::replace(&mut *self.objects.write(), found);
        told.extend(before.into_keys());
        self.filled.send_replace(true);
        told.iter().for_each(changed);
        Ok(version)
    }

    /// Watches until that ends; `from` is where it went on, and then where it ended.
    async fn watch(
        &self,
        client: &Client,
        source: &Source,
        from: &mut String,
        keep: impl Fn(Value) -> T,
        changed: impl Fn(&Key),
    ) -> Result<(), Error> {
        let accept = if source.metadata { METADATA } else { JSON };
        let mut watch = client.watch(&source.path, &source.query, accept, from).await?;
        while let Some(event) = watch.next().await {
            let Ok(mut event) = event else { break };
            let object = event["object"].take();
            match event["type"].as_str() {
                Some("ERROR") => {
                    let status = serde_json::from_value(object).unwrap_or_default();
                    return Err(Error::Status(Box::new(status)));
                }
                Some(kind) => {
                    if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
                        version.clone_into(from);
                    }
                    let key = Key::of(&object);
                    match kind {
                        "ADDED" | "MODIFIED" => {
                            self.objects.write().insert(key.clone(), Arc::new(keep(object)));
                        }
                        "DELETED" => {
                            self.objects.write().remove(&key);
                        }
                        _ => continue,
                    }
                    changed(&key);
                }
                None => {}
            }
        }
        Ok(())
    }
}
