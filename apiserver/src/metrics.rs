//! Metrics under the names that Kubernetes' API servers have.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::request::RequestInfo;

pub(crate) mod admission;
mod process;

/// What a request was for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Request {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

impl Request {
    /// The labels of a request for something that is served: what is not must not make a series of its own, for
    /// anybody can ask for it.
    pub(crate) fn of(info: &RequestInfo, dry_run: bool, applies: bool) -> Self {
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => "resource",
            _ if info.verb == "create" => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let verb = match info.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" if applies => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        Request {
            verb,
            dry_run: if dry_run { "All" } else { "" },
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
            component: "apiserver",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    #[prometheus(flatten)]
    request: Request,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InFlight {
    request_kind: &'static str,
}

/// The metrics of one server.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<Request, Histogram>,
    in_flight: Family<InFlight, Gauge<i64, AtomicI64>>,
    long_running: Family<Request, Gauge<i64, AtomicI64>>,
    /// Events written to the audit log, and those that could not be.
    pub(crate) audit_events: Counter,
    pub(crate) audit_errors: Counter,
    pub(crate) webhooks: admission::Webhooks,
}

/// The buckets of Kubernetes, below which those that answers from memory need.
fn histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0,
        5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let (in_flight, long_running) = (Family::default(), Family::default());
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and HTTP code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer a request that is no watch",
            durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests under way, without watches",
            in_flight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches under way",
            long_running.clone(),
        );
        let (audit_events, audit_errors) = (Counter::default(), Counter::default());
        registry.register("apiserver_audit_event", "Events of the audit log", audit_events.clone());
        registry.register(
            "apiserver_audit_error",
            "Events that the audit log has lost",
            audit_errors.clone(),
        );
        let webhooks = admission::Webhooks::register(&mut registry);
        registry.register_collector(Box::new(process::Process));
        Metrics {
            registry: Mutex::new(registry),
            requests,
            durations,
            in_flight,
            long_running,
            audit_events,
            audit_errors,
            webhooks,
        }
    }
}

/// Counts down when the request is over.
pub(crate) struct UnderWay(Gauge<i64, AtomicI64>);

impl UnderWay {
    fn new(gauge: Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        UnderWay(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn in_flight(&self, mutating: bool) -> UnderWay {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        UnderWay::new(self.in_flight.get_or_create_owned(&InFlight { request_kind }))
    }

    pub(crate) fn long_running(&self, request: &Request) -> UnderWay {
        UnderWay::new(self.long_running.get_or_create_owned(request))
    }

    /// Counts an answer; `elapsed` is the time that it took, if that means something.
    pub(crate) fn answered(&self, request: Request, code: u16, elapsed: Option<Duration>) {
        if let Some(elapsed) = elapsed {
            self.durations.get_or_create(&request).observe(elapsed.as_secs_f64());
        }
        self.requests.get_or_create(&Answered { request, code }).inc();
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let _infallible = encode(&mut text, &self.registry.lock());
        text
    }
}
