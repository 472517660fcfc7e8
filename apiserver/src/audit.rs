//! The audit log: who asked for what, and what came of it, as `audit.k8s.io/v1` events.
//!
//! One JSON line for each answered request, two for a watch (when it starts and when it ends). A request whose client
//! goes before the answer leaves its line too. Unless a [`Policy`] asks for them, bodies and the texts of errors are
//! left out, for they can hold secrets, and probes are not recorded; what holds credentials never is.

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

use crate::body::{Begun, Body, holding};
use crate::listener::ConnectionInfo;
use crate::metrics::Metrics;
use crate::render::Reason;
use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::UserInfo;

mod bodies;
mod file;
mod policy;

use policy::{Applied, Level, Stage};

pub use policy::Policy;

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
    pub policy: Policy,
}

/// Takes events. They are written by a task of its own.
pub struct Log {
    lines: mpsc::Sender<Vec<u8>>,
    policy: Policy,
    metrics: Arc<Metrics>,
    clock: fn() -> Timestamp,
}

impl Log {
    /// Opens the file and writes until the server ends.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub(crate) fn start(options: Options, server: &Server) -> std::io::Result<Arc<Self>> {
        let policy = options.policy.clone();
        let file = file::File::open(options, server.clock)?;
        let (lines, receiver) = mpsc::channel(QUEUE);
        let metrics = Arc::clone(&server.metrics);
        server.tracker.spawn(write(file, receiver, server.token.clone(), Arc::clone(&metrics)));
        Ok(Arc::new(Log { lines, policy, metrics, clock: server.clock }))
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
        let content_type = text(request.headers().get(header::CONTENT_TYPE)).unwrap_or_default();
        let trail = Trail(Arc::new(Shared {
            log: Arc::clone(self),
            info: info.clone(),
            content_type,
            found: Mutex::new(Found { event, ..Found::default() }),
        }));
        Entry { trail, told: false }
    }

    async fn put(&self, line: Option<Vec<u8>>) {
        let Some(line) = line else { return };
        match tokio::time::timeout(PATIENCE, self.lines.send(line)).await {
            Ok(Ok(())) => {}
            _ => {
                self.metrics.audit_errors.inc();
            }
        }
    }

    fn put_now(&self, line: Option<Vec<u8>>) {
        let Some(line) = line else { return };
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
#[derive(Clone)]
pub(crate) struct Trail(Arc<Shared>);

struct Shared {
    log: Arc<Log>,
    info: RequestInfo,
    content_type: String,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    event: Value,
    user: Option<UserInfo>,
    impersonated: Option<UserInfo>,
    decision: Option<&'static str>,
    /// What the policy says; `None` until it is known who asks.
    applied: Option<Applied>,
    heard: Option<bodies::Heard>,
}

impl Trail {
    /// Who asks; from then on it is settled how much is recorded.
    pub(crate) async fn user(&self, user: &UserInfo) {
        self.0.found.lock().user = Some(user.clone());
        self.0.applied();
        let line = self.0.line(Stage::RequestReceived);
        self.0.log.put(line).await;
    }

    pub(crate) fn impersonated(&self, user: &UserInfo) {
        self.0.found.lock().impersonated = Some(user.clone());
    }

    /// Something that is to be known of the request later.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        self.0.found.lock().event["annotations"][key] = json!(value);
    }

    pub(crate) fn allowed(&self, allowed: bool) {
        self.0.found.lock().decision = Some(if allowed { "allow" } else { "forbid" });
    }

    /// The body of a request that changes something, listened to if it is to be recorded.
    pub(crate) fn hear(&self, body: Body) -> Body {
        if self.0.applied().level < Level::Request || !self.0.info.is_mutating() {
            return body;
        }
        let heard = bodies::Heard::default();
        self.0.found.lock().heard = Some(heard.clone());
        heard.follow(body)
    }
}

impl Shared {
    /// What the policy says of the request; who is nobody yet will not be known any more.
    fn applied(&self) -> Applied {
        let mut found = self.found.lock();
        let Found { applied, user, event, .. } = &mut *found;
        let applied = applied.get_or_insert_with(|| {
            let nobody = UserInfo::default();
            let applied = self.log.policy.apply(user.as_ref().unwrap_or(&nobody), &self.info);
            event["level"] = json!(applied.level);
            applied
        });
        applied.clone()
    }

    /// The line of a stage, if it is to be recorded.
    fn line(&self, stage: Stage) -> Option<Vec<u8>> {
        let applied = self.applied();
        if applied.level == Level::None || applied.omit_stages.contains(&stage) {
            return None;
        }
        let found = self.found.lock();
        let mut event = found.event.clone();
        event["stage"] = json!(stage);
        event["stageTimestamp"] = json!(time::rfc3339_micro((self.log.clock)()));
        event["user"] = found.user.as_ref().map_or_else(|| json!({}), user_info);
        if let Some(user) = &found.impersonated {
            event["impersonatedUser"] = user_info(user);
        }
        if let Some(decision) = found.decision {
            event["annotations"]["authorization.k8s.io/decision"] = json!(decision);
        }
        if stage != Stage::RequestReceived
            && let Some(bytes) = found.heard.as_ref().and_then(bodies::Heard::whole)
            && let Some(object) =
                bodies::parse(&self.content_type, &bytes, applied.omit_managed_fields)
        {
            event["requestObject"] = object;
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        Some(line)
    }
}

/// The object that a request created, beside the response: its path does not tell the name.
#[derive(Clone)]
pub(crate) struct Named(pub(crate) Arc<Object>);

/// One request's entry. Dropped before it was answered, it tells so.
pub(crate) struct Entry {
    trail: Trail,
    told: bool,
}

impl Entry {
    pub(crate) fn trail(&self) -> Trail {
        self.trail.clone()
    }

    /// Records the answer. That of a long request is recorded once more when it has ended.
    pub(crate) async fn answered(
        mut self,
        mut response: Response<Body>,
        long: bool,
    ) -> Response<Body> {
        let shared = Arc::clone(&self.trail.0);
        let applied = shared.applied();
        if applied.level == Level::RequestResponse && !long {
            let (parts, body) = response.into_parts();
            let begun = Begun::read(body, bodies::MAX).await;
            let content_type = parts.headers.get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
            let whole = begun.whole();
            let object = whole
                .and_then(|bytes| bodies::parse(content_type, &bytes, applied.omit_managed_fields));
            if let Some(object) = object {
                shared.found.lock().event["responseObject"] = object;
            }
            response = Response::from_parts(parts, begun.resume());
        }
        let code = response.status().as_u16();
        {
            let event = &mut shared.found.lock().event;
            event["responseStatus"] = match response.extensions().get::<Reason>() {
                Some(Reason(reason)) => {
                    json!({"metadata": {}, "status": "Failure", "reason": reason, "code": code})
                }
                None => json!({"metadata": {}, "code": code}),
            };
            if let Some(Named(object)) = response.extensions().get::<Named>() {
                event["objectRef"]["name"] = json!(&*object.index.name);
            }
        }
        if long && response.status().is_success() {
            shared.log.put(shared.line(Stage::ResponseStarted)).await;
            // The end of the body is the end of the entry.
            return response.map(|body| holding(body, self));
        }
        self.told = true;
        shared.log.put(shared.line(Stage::ResponseComplete)).await;
        response
    }

    /// Records that the handler panicked.
    pub(crate) async fn panicked(&self) {
        let shared = &self.trail.0;
        shared.log.put(shared.line(Stage::Panic)).await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.told {
            let shared = &self.trail.0;
            shared.log.put_now(shared.line(Stage::ResponseComplete));
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
