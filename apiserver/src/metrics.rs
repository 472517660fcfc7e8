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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Latency {
    verb: String,
    group: String,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InFlight {
    request_kind: &'static str,
}

/// The metrics of one server.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    durations: Family<Latency, Histogram>,
    in_flight: Family<InFlight, Gauge<i64, AtomicI64>>,
    /// Events written to the audit log, and those that could not be.
    pub(crate) audit_events: Counter,
    pub(crate) audit_errors: Counter,
}

fn histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let in_flight = Family::default();
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
            "Requests under way",
            in_flight.clone(),
        );
        let (audit_events, audit_errors) = (Counter::default(), Counter::default());
        registry.register("apiserver_audit_event", "Events of the audit log", audit_events.clone());
        registry.register(
            "apiserver_audit_error",
            "Events that the audit log has lost",
            audit_errors.clone(),
        );
        Metrics {
            registry: Mutex::new(registry),
            requests,
            durations,
            in_flight,
            audit_events,
            audit_errors,
        }
    }
}

/// Counts down when the request is over.
pub(crate) struct InFlightGuard(Gauge<i64, AtomicI64>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn in_flight(&self, mutating: bool) -> InFlightGuard {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        let gauge = self.in_flight.get_or_create_owned(&InFlight { request_kind });
        gauge.inc();
        InFlightGuard(gauge)
    }

    /// Counts a request for something that is served: what is not must not make a series of its own, for anybody can
    /// ask for it.
    pub(crate) fn request(&self, info: &RequestInfo, code: u16, elapsed: Duration) {
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let verb = info.verb.to_ascii_uppercase();
        if !info.is_long_running() {
            let latency = Latency {
                verb: verb.clone(),
                group: info.group.clone(),
                resource: info.resource.clone(),
            };
            self.durations.get_or_create(&latency).observe(elapsed.as_secs_f64());
        }
        let request = Request {
            verb,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
            code,
        };
        self.requests.get_or_create(&request).inc();
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let _infallible = encode(&mut text, &self.registry.lock());
        text
    }
}
