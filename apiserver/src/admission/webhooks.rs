//! The host's admission webhooks, asked as Kubernetes asks them (`plugin/webhook` of `k8s.io/apiserver`).

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use kubefed_apimachinery::gvk::{GroupResource, GroupVersion};
use kubefed_apimachinery::status::Status;
use serde_json::json;

use super::known::Known;
use super::matching::{self, Asked};
use super::{Operation, Review};
use crate::host::Namespaces;
use crate::metrics::admission::{Call, Fault};
use crate::registry::{Part, Route};

mod call;
mod conditions;
mod hook;
mod reinvocation;
mod review;

pub(crate) use hook::{Hook, as_mutating};

use call::Caller;
use reinvocation::Reinvocation;
use review::Answer;

/// What a webhook wants recorded with a request is kept up to this length: it stays in memory until its line is
/// written.
const MAX_ANNOTATION: usize = 10 * 1024;

/// All webhooks of the host.
pub(crate) struct Webhooks {
    pub(crate) mutating: Hooks,
    pub(crate) validating: Hooks,
    namespaces: Arc<Namespaces>,
    caller: Arc<Caller>,
}

/// Those of one kind, in the order in which they are called.
pub(crate) struct Hooks {
    known: Known<Hook>,
    caller: Arc<Caller>,
}

impl Hooks {
    fn new(caller: &Arc<Caller>) -> Self {
        Hooks { known: Known::new(), caller: Arc::clone(caller) }
    }

    /// Takes these in the place of those that were known.
    pub(crate) fn publish(&self, hooks: Vec<Hook>) {
        self.known.publish(hooks);
        self.caller.forget();
    }

    fn concerns(&self, asked: &Asked<'_>) -> bool {
        self.known.any(|hook| hook.version(asked).is_some())
    }
}

/// Why a write does not go on.
enum Refusal {
    /// There is no answer that counts; whether that matters is up to the webhook's failure policy.
    Unanswered {
        reason: String,
        code: u16,
    },
    Denied(Status),
    /// Something else, which refuses whatever the failure policy says.
    Broken(Status),
}

impl Webhooks {
    pub(crate) fn new(host: kube::Client, namespaces: Arc<Namespaces>) -> Self {
        let caller = Arc::new(Caller::new(host));
        Webhooks {
            mutating: Hooks::new(&caller),
            validating: Hooks::new(&caller),
            namespaces,
            caller,
        }
    }

    /// Whether the host was asked which there are.
    pub(crate) fn is_ready(&self) -> bool {
        self.mutating.known.is_ready() && self.validating.known.is_ready()
    }

    /// Whether the rules of any are about such a write.
    pub(crate) fn concerns(&self, route: &Route, part: Part, operation: Operation) -> bool {
        let asked = Asked::new(route, part, operation, "");
        self.mutating.concerns(&asked) || self.validating.concerns(&asked)
    }

    /// Asks the mutating webhooks one after the other, and once more those that want to see what later ones changed.
    pub(crate) async fn mutate(&self, review: &mut Review<'_>) -> Result<(), Status> {
        let hooks = self.mutating.known.get(review).await?;
        let mut rounds = Reinvocation::default();
        self.round(&hooks, review, 0, &mut rounds).await?;
        if rounds.is_due() {
            self.round(&hooks, review, 1, &mut rounds).await?;
        }
        Ok(())
    }

    async fn round(
        &self,
        hooks: &[Hook],
        review: &mut Review<'_>,
        round: u8,
        rounds: &mut Reinvocation,
    ) -> Result<(), Status> {
        for (index, hook) in hooks.iter().enumerate() {
            if round > 0 && !rounds.has(index) {
                continue;
            }
            let Some(version) = self.concerned(hook, review).await? else { continue };
            let began = Instant::now();
            let outcome = match self.ask(hook, review, &version, true).await {
                Ok(answer) => answer
                    .patched(&hook.name, review.object_in(&version).as_ref())
                    .map_err(Refusal::Broken),
                Err(refusal) => Err(refusal),
            };
            let outcome = judge(hook, review, began, "admit", outcome);
            let place = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
            match outcome {
                Ok(Some(patched)) => {
                    let changed = patched.is_some();
                    if let Some(patched) = patched {
                        review.set_object(patched);
                    }
                    rounds.asked(index, changed, hook.again);
                    let word = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
                    review.notes.annotate(&place, &word.to_string());
                }
                Ok(None) => {
                    rounds.asked(index, false, hook.again);
                    review.notes.annotate(&format!("failed-open.{place}"), &hook.name);
                }
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }

    /// Asks all validating webhooks at the same time.
    pub(crate) async fn validate(&self, review: &Review<'_>) -> Result<(), Status> {
        let hooks = self.validating.known.get(review).await?;
        let mut concerned = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if let Some(version) = self.concerned(hook, review).await? {
                concerned.push((index, hook, version));
            }
        }
        let answers = concerned.into_iter().map(|(index, hook, version)| async move {
            let began = Instant::now();
            let outcome = self.ask(hook, review, &version, false).await;
            let outcome = judge(hook, review, began, "validating", outcome);
            if let Ok(None) = outcome {
                let place = format!(
                    "failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}"
                );
                review.notes.annotate(&place, &hook.name);
            }
            outcome.map(drop)
        });
        join_all(answers).await.into_iter().collect()
    }

    /// The version in which a webhook is to be asked, if it is.
    async fn concerned(
        &self,
        hook: &Hook,
        review: &Review<'_>,
    ) -> Result<Option<GroupVersion>, Status> {
        let asked = review.asked();
        let Some(version) = hook.version(&asked) else { return Ok(None) };
        let wrong = |why: &String| Status::internal(format!("webhook {:?}: {why}", hook.name));
        let objects = hook.objects.as_ref().map_err(wrong)?;
        if !matching::selects(objects, review.object.as_ref(), review.old_object.as_ref()) {
            return Ok(None);
        }
        let namespaces = hook.namespaces.as_ref().map_err(wrong)?;
        // What is in no namespace is not left out by one.
        if !namespaces.is_everything() && !review.namespace.is_empty() {
            let labels = self.namespaces.labels(review.namespace).await?;
            let labels = labels.ok_or_else(|| {
                let resource =
                    GroupResource { group: String::new(), resource: "namespaces".into() };
                Status::not_found(&resource, review.namespace)
            })?;
            if !namespaces.matches(|key| labels.get(key).map(String::as_str)) {
                return Ok(None);
            }
        }
        Ok(conditions::hold(hook, review, version).await?.then(|| version.clone()))
    }

    /// One webhook's answer to one question, if it lets the write go on.
    async fn ask(
        &self,
        hook: &Hook,
        review: &Review<'_>,
        version: &GroupVersion,
        mutates: bool,
    ) -> Result<Answer, Refusal> {
        if review.dry_run && !hook.takes_dry_runs() {
            let text = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Refusal::Broken(Status::bad_request(text)));
        }
        let unanswered = |reason: String| Refusal::Unanswered { reason, code: 0 };
        let request = review::request(hook, review, version)
            .map_err(|why| unanswered(format!("could not create admission objects: {why}")))?;
        let answer = self.caller.call(hook, request.body.clone()).await.map_err(|failure| {
            Refusal::Unanswered { reason: failure.reason, code: failure.code }
        })?;
        let answer = review::answer(&request, mutates, &answer)
            .map_err(|why| unanswered(format!("received invalid webhook response: {why}")))?;
        for (key, value) in answer.audit_annotations.iter().flatten() {
            if !key.is_empty() && !key.contains('/') && value.len() <= MAX_ANNOTATION {
                review.notes.annotate(&format!("{}/{key}", hook.name), value);
            }
        }
        for warning in answer.warnings.iter().flatten() {
            review.notes.warn(warning.clone());
        }
        if answer.allowed { Ok(answer) } else { Err(Refusal::Denied(answer.denial(&hook.name))) }
    }
}

/// What comes of an answer: what it says, `None` if the write goes on without it, or the refusal.
fn judge<T>(
    hook: &Hook,
    review: &Review<'_>,
    began: Instant,
    kind: &'static str,
    outcome: Result<T, Refusal>,
) -> Result<Option<T>, Status> {
    let call = Call { name: hook.name.clone(), kind, operation: review.operation.as_str() };
    let metrics = &review.notes.metrics.webhooks;
    let (outcome, fault) = match outcome {
        Ok(said) => (Ok(Some(said)), None),
        Err(Refusal::Unanswered { reason, .. }) if hook.may_fail => {
            tracing::warn!(webhook = hook.name, reason, "no answer; the write goes on without it");
            (Ok(None), None)
        }
        Err(Refusal::Unanswered { reason, code }) => {
            tracing::warn!(webhook = hook.name, reason, "no answer; the write is refused");
            let text = format!("failed calling webhook {:?}: {reason}", hook.name);
            (Err(Status::internal(text)), Some((Fault::Calling, code)))
        }
        Err(Refusal::Denied(status)) => {
            let code = status.code;
            (Err(status), Some((Fault::None, code)))
        }
        Err(Refusal::Broken(status)) => (Err(status), Some((Fault::Server, 0))),
    };
    metrics.answered(call, began.elapsed(), fault);
    outcome
}
