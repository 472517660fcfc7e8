//! The audit log: who asked for what, and what came of it, as `audit.k8s.io/v1` events at level `Metadata`.
//!
//! One JSON line for each answered request, two for a watch (when it starts and when it ends). Bodies, headers and the
//! texts of errors are left out: they can hold secrets. A request whose client goes before the answer leaves its line
//! too. Probes are not recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use http::{HeaderValue, Response, header};
use jiff::Timestamp;
use kubefed_apimachinery::time;
use kubefed_storage::object::Object;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, holding};
use crate::listener::ConnectionInfo;
use crate::metrics::Metrics;
use crate::render::Reason;
use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::UserInfo;

mod file;

/// Lines that wait to be written. A disk that is slower than requests come slows them down when it is full.
const QUEUE: usize = 1024;
const BATCH: usize = 256;
/// How long a request waits for the disk; then its line is counted as lost and the request goes on.
const PATIENCE: Duration = Duration::from_secs(5);
/// As Kubernetes cuts the name of the client's program; a path is cut where no real one comes to.
const USER_AGENT_MAX: usize = 1024;
const URI_MAX: usize = 8192;

/// Where the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A file; `-` is standard output.
    pub path: PathBuf,
    /// In bytes: a file that would grow larger is put aside.
    pub max_size: u64,
    /// How many files put aside are kept.
    pub max_backups: usize,
}

/// Takes events. They are written by a task of its own.
pub struct Log {
    lines: mpsc::Sender<Vec<u8>>,
    metrics: Arc<Metrics>,
    clock: fn() -> Timestamp,
}

impl Log {
    /// Opens the file and writes until the server ends.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub(crate) fn start(options: Options, server: &Server) -> std::io::Result<Arc<Self>> {
        let file = file::File::open(options, server.clock)?;
        let (lines, receiver) = mpsc::channel(QUEUE);
        let metrics = Arc::clone(&server.metrics);
        server.tracker.spawn(write(file, receiver, server.token.clone(), Arc::clone(&metrics)));
        Ok(Arc::new(Log { lines, metrics, clock: server.clock }))
    }

    /// The entry of a request that came in.
    pub(crate) fn begin(
        self: &Arc<Self>,
        request: &Request,
        info: &RequestInfo,
        audit_id: &HeaderValue,
    ) -> Entry {
        let text = |value: Option<&HeaderValue>| {
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": text(Some(audit_id)),
            "requestURI": cut(request.uri().to_string(), URI_MAX),
            "verb": info.verb,
            "requestReceivedTimestamp": time::rfc3339_micro((self.clock)()),
        });
        if let Some(agent) = text(request.headers().get(header::USER_AGENT)) {
            event["userAgent"] = json!(cut(agent, USER_AGENT_MAX));
        }
        if let Some(connection) = request.extensions().get::<ConnectionInfo>() {
            event["sourceIPs"] = json!([connection.peer.ip()]);
        }
        if info.is_resource {
            let reference = [
                ("resource", &info.resource),
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("apiVersion", &info.version),
                ("subresource", &info.subresource),
            ];
            let told = reference.into_iter().filter(|(_, text)| !text.is_empty());
            event["objectRef"] =
                told.map(|(field, text)| (field.to_owned(), json!(text))).collect();
        }
        Entry { log: Arc::clone(self), event, trail: Trail::default(), told: false }
    }

    async fn put(&self, line: Vec<u8>) {
        match tokio::time::timeout(PATIENCE, self.lines.send(line)).await {
            Ok(Ok(())) => {}
            _ => {
                self.metrics.audit_errors.inc();
            }
        }
    }

    fn put_now(&self, line: Vec<u8>) {
        if self.lines.try_send(line).is_err() {
            self.metrics.audit_errors.inc();
        }
    }
}

async fn write(
    mut file: file::File,
    mut lines: mpsc::Receiver<Vec<u8>>,
    token: CancellationToken,
    metrics: Arc<Metrics>,
) {
    let mut batch = Vec::new();
    loop {
        // Both are cancel-safe. When the server ends, what is in the queue is still written.
        let count = tokio::select! {
            biased;
            count = lines.recv_many(&mut batch, BATCH) => count,
            () = token.cancelled(), if !lines.is_closed() => {
                lines.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let written = std::mem::take(&mut batch);
        let outcome = tokio::task::spawn_blocking(move || {
            let outcome = file.append(&written);
            (file, outcome)
        })
        .await;
        let count = count as u64;
        match outcome {
            Ok((same, Ok(()))) => {
                file = same;
                metrics.audit_events.inc_by(count);
            }
            Ok((same, Err(error))) => {
                file = same;
                metrics.audit_errors.inc_by(count);
                tracing::error!(%error, "the audit log can't be written");
            }
            Err(error) => {
                metrics.audit_errors.inc_by(count);
                tracing::error!(%error, "the audit log ended");
                return;
            }
        }
    }
}

/// What the filters find out about a request on its way.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Found>>);

#[derive(Default)]
struct Found {
    user: Option<UserInfo>,
    impersonated: Option<UserInfo>,
    decision: Option<&'static str>,
}

impl Trail {
    pub(crate) fn user(&self, user: &UserInfo) {
        self.0.lock().user = Some(user.clone());
    }

    pub(crate) fn impersonated(&self, user: &UserInfo) {
        self.0.lock().impersonated = Some(user.clone());
    }

    pub(crate) fn allowed(&self, allowed: bool) {
        self.0.lock().decision = Some(if allowed { "allow" } else { "forbid" });
    }
}

/// The object that a request created, beside the response: its path does not tell the name.
#[derive(Clone)]
pub(crate) struct Named(pub(crate) Arc<Object>);

/// One request's entry. Dropped before it was answered, it tells so.
pub(crate) struct Entry {
    log: Arc<Log>,
    event: Value,
    trail: Trail,
    told: bool,
}

impl Entry {
    pub(crate) fn trail(&self) -> Trail {
        self.trail.clone()
    }

    /// Records the answer. That of a long request is recorded once more when it has ended.
    pub(crate) async fn answered(mut self, response: Response<Body>, long: bool) -> Response<Body> {
        let code = response.status().as_u16();
        self.event["responseStatus"] = match response.extensions().get::<Reason>() {
            Some(Reason(reason)) => {
                json!({"metadata": {}, "status": "Failure", "reason": reason, "code": code})
            }
            None => json!({"metadata": {}, "code": code}),
        };
        if let Some(Named(object)) = response.extensions().get::<Named>() {
            self.event["objectRef"]["name"] = json!(&*object.index.name);
        }
        if long && response.status().is_success() {
            self.log.put(self.line("ResponseStarted")).await;
            // The end of the body is the end of the entry.
            return response.map(|body| holding(body, self));
        }
        self.told = true;
        self.log.put(self.line("ResponseComplete")).await;
        response
    }

    /// Records that the handler panicked.
    pub(crate) async fn panicked(&self) {
        self.log.put(self.line("Panic")).await;
    }

    fn line(&self, stage: &str) -> Vec<u8> {
        let mut event = self.event.clone();
        event["stage"] = json!(stage);
        event["stageTimestamp"] = json!(time::rfc3339_micro((self.log.clock)()));
        let found = self.trail.0.lock();
        event["user"] = found.user.as_ref().map_or_else(|| json!({}), user_info);
        if let Some(user) = &found.impersonated {
            event["impersonatedUser"] = user_info(user);
        }
        if let Some(decision) = found.decision {
            event["annotations"] = json!({"authorization.k8s.io/decision": decision});
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.told {
            self.log.put_now(self.line("ResponseComplete"));
        }
    }
}

/// A user as the reviews and the audit log show one.
pub(crate) fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
