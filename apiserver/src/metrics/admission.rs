//! How a host's webhooks do.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A question to a webhook.
pub(crate) struct Call {
    pub(crate) name: String,
    /// `admit` or `validating`.
    pub(crate) kind: &'static str,
    pub(crate) operation: &'static str,
}

/// Whose fault it is that a write is refused.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The webhook said no.
    None,
    /// It gave no answer.
    Calling,
    /// What it said could not be done.
    Server,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rejected {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

/// What is counted of webhooks, under Kubernetes' names.
pub(crate) struct Webhooks {
    durations: Family<Asked, Histogram>,
    /// Only ever counts up; as a counter its name would end in `_total`, which Kubernetes' does not.
    rejections: Family<Rejected, Gauge<u64, AtomicU64>>,
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
}

impl Webhooks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let rejections = Family::default();
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time that admission webhooks took",
            durations.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_rejection_count",
            "Writes that were refused for an admission webhook",
            rejections.clone(),
        );
        Webhooks { durations, rejections }
    }

    /// Counts an answer, or that there was none; `fault` and a code if the write is refused for it.
    pub(crate) fn answered(&self, call: Call, elapsed: Duration, fault: Option<(Fault, u16)>) {
        let Call { name, kind, operation } = call;
        let rejected = if fault.is_some() { "true" } else { "false" };
        let asked = Asked { name: name.clone(), r#type: kind, operation, rejected };
        self.durations.get_or_create(&asked).observe(elapsed.as_secs_f64());
        if let Some((fault, rejection_code)) = fault {
            let error_type = match fault {
                Fault::None => "no_error",
                Fault::Calling => "calling_webhook_error",
                Fault::Server => "apiserver_internal_error",
            };
            let rejected = Rejected { name, r#type: kind, operation, error_type, rejection_code };
            self.rejections.get_or_create(&rejected).inc();
        }
    }
}
