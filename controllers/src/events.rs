//! Events: what a user should know of an object, at most once in a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubefed_apimachinery::{meta, time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// The same thing about the same object is not said again for this long.
const QUIET: Duration = Duration::from_secs(300);
/// Events waiting to be written. More are let go: they inform, nothing depends on them.
const QUEUE: usize = 1000;
const REMEMBERED: usize = 10_000;
const MAX_MESSAGE: usize = 1000;

/// Writes events in the background.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Value>,
    said: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Recorder {
    /// A recorder, and the work that writes what it records.
    pub(crate) fn new(
        client: Client,
        token: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut events) = mpsc::channel::<Value>(QUEUE);
        let write = async move {
            loop {
                let event = tokio::select! {
                    () = token.cancelled() => return,
                    event = events.recv() => event,
                };
                let Some(event) = event else { return };
                let path = format!("/api/v1/namespaces/{}/events", meta::namespace(&event));
                if let Err(error) = client.create(&path, &event).await {
                    tracing::debug!(%error, "an event was not written");
                }
            }
        };
        (Recorder { queue, said: Arc::default() }, write)
    }

    /// Tells that something about an object is not as it should be.
    pub(crate) fn warn(&self, object: &Value, component: &str, reason: &str, message: &str) {
        self.tell("Warning", object, component, reason, message);
    }

    /// Tells what is done for an object, unless there is much to be told: warnings go first.
    pub(crate) fn note(&self, object: &Value, component: &str, reason: &str, message: &str) {
        if self.queue.capacity() > QUEUE / 2 {
            self.tell("Normal", object, component, reason, message);
        }
    }

    fn tell(&self, kind: &str, object: &Value, component: &str, reason: &str, message: &str) {
        let uid = meta::uid(object);
        let now = Instant::now();
        {
            let mut said = self.said.lock();
            if said.len() > REMEMBERED {
                said.retain(|_, at| now.duration_since(*at) < QUIET);
            }
            let known = said.entry(format!("{uid}/{reason}/{message}")).or_insert(now);
            if *known != now && now.duration_since(*known) < QUIET {
                return;
            }
            *known = now;
        }
        let namespace =
            Some(meta::namespace(object)).filter(|n| !n.is_empty()).unwrap_or("default");
        let now = Timestamp::now();
        let at = time::rfc3339(now);
        // As client-go names them: a generated name could not begin with the object's and a dot.
        let name = format!("{}.{:x}", meta::name(object), now.as_nanosecond());
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": object["apiVersion"], "kind": object["kind"], "name": meta::name(object),
                "namespace": meta::namespace(object), "uid": uid, "resourceVersion": meta::resource_version(object),
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "source": {"component": component},
        });
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was let go");
        }
    }
}
