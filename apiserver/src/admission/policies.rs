//! The host's ValidatingAdmissionPolicies, as `plugin/policy/validating` of `k8s.io/apiserver` has them.
//!
//! Two things are other than there. `authorizer` is not known to expressions: one that uses it does not compile, and
//! the policy's `failurePolicy` decides. And the objects that policies have as parameters are read with the rights that
//! the host gives to this server: a kind that it may not read is a failure as well, so that `failurePolicy` decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube_cel::cel::Value as Cel;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::status::{Cause, Status};
use serde_json::{Value, json};

use super::cel::{self, Inputs, from_json};
use super::known::Known;
use super::matching::{Asked, Matcher};
use super::{Operation, Review};
use crate::host::{Namespaces, Params};
use crate::registry::{Part, Route};

mod policy;

pub(crate) use policy::{Binding, Bound, Policy};
use policy::{Outcome, Verdict};

/// A longer annotation is cut; Kubernetes' bound.
const ANNOTATION_MAX: usize = 10 * 1024;

/// The policies that are in force, in the order of their names.
pub(crate) struct Policies {
    known: Known<Bound>,
    namespaces: Arc<Namespaces>,
    params: Params,
}

/// One evaluation: a policy by a binding with one object of parameters.
struct Evaluation<'a> {
    policy: &'a Arc<Policy>,
    binding: &'a Binding,
    inputs: Inputs,
}

/// Why a request is refused.
struct Refusal {
    policy: String,
    binding: Option<String>,
    reason: Option<String>,
    message: String,
}

impl Policies {
    pub(crate) fn new(host: kube::Client, namespaces: Arc<Namespaces>) -> Self {
        Policies { known: Known::new(), namespaces, params: Params::new(host) }
    }

    /// Puts these policies in force.
    pub(crate) fn publish(&self, policies: Vec<Bound>) {
        self.known.publish(policies);
    }

    /// Whether the policies of the host are known.
    pub(crate) fn is_ready(&self) -> bool {
        self.known.is_ready()
    }

    /// Whether a policy may have a say in such writes.
    pub(crate) fn concerns(&self, route: &Route, part: Part, operation: Operation) -> bool {
        let asked = Asked::new(route, part, operation, "");
        self.known.any(|bound| {
            !bound.bindings.is_empty()
                && bound.policy.matcher.as_ref().map_or(true, |matcher| matcher.concerns(&asked))
        })
    }

    /// Lets the policies have their say.
    ///
    /// # Errors
    /// What the first one says that refuses the request.
    pub(crate) async fn validate(&self, review: &Review<'_>) -> Result<(), Status> {
        let known = self.known.get(review).await?;
        let mut refusals = Vec::new();
        let mut evaluations = Vec::new();
        for bound in known.iter().filter(|bound| !bound.bindings.is_empty()) {
            self.gather(bound, review, &mut evaluations, &mut refusals).await?;
        }
        if !evaluations.is_empty() {
            let outcomes = self.evaluate(&evaluations).await;
            apply(&evaluations, outcomes, review, &mut refusals);
        }
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(refused(&refusal, review)),
        }
    }

    /// Finds the bindings of a policy that are about the request, each with its parameters.
    async fn gather<'a>(
        &self,
        bound: &'a Bound,
        review: &Review<'_>,
        evaluations: &mut Vec<Evaluation<'a>>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Status> {
        let policy = &bound.policy;
        let mut fail = |binding: Option<&Binding>, why: String| {
            let of = if binding.is_some() { "binding" } else { "policy" };
            let verdict = policy.failed(format!("failed to configure {of}: {why}"));
            refusals.extend(refusal(policy, binding, verdict));
        };
        let version = match &policy.matcher {
            Ok(matcher) => match self.version(matcher, review).await? {
                Some(version) => version,
                None => return Ok(()),
            },
            Err(why) => {
                fail(None, why.clone());
                return Ok(());
            }
        };
        let mut inputs = None;
        for binding in &bound.bindings {
            match &binding.matcher {
                Some(Ok(matcher)) if self.version(matcher, review).await?.is_none() => continue,
                Some(Err(why)) => {
                    fail(Some(binding), why.clone());
                    continue;
                }
                _ => {}
            }
            let params = match (&policy.param_kind, &binding.params) {
                (Some(kind), Some(reference)) => {
                    let found = self.params.find(kind, reference, review.namespace).await;
                    found.map(|found| found.iter().map(from_json).collect())
                }
                _ => Ok(vec![Cel::Null]),
            };
            let params = match params {
                Ok(params) => params,
                Err(why) => {
                    fail(Some(binding), why);
                    continue;
                }
            };
            for params in params {
                if inputs.is_none() {
                    inputs = Some(self.inputs(policy, &version, review).await?);
                }
                let mut inputs = inputs.clone().unwrap_or_default();
                inputs.insert("params", params);
                evaluations.push(Evaluation { policy, binding, inputs });
            }
        }
        Ok(())
    }

    /// The version in which a policy or binding is about the request, if it is.
    async fn version(
        &self,
        matcher: &Matcher,
        review: &Review<'_>,
    ) -> Result<Option<GroupVersion>, Status> {
        let asked = review.asked();
        let (object, old) = (review.object.as_ref(), review.old_object.as_ref());
        let Some(version) = matcher.version(&asked, object, old) else { return Ok(None) };
        if review.namespace.is_empty() || matcher.namespaces.is_everything() {
            return Ok(Some(version.clone()));
        }
        // What is deleted in a namespace that is gone has the labels of none.
        let labels = self.namespaces.labels(review.namespace).await?.unwrap_or_default();
        let picked = matcher.namespaces.matches(|key| labels.get(key).map(String::as_str));
        Ok(picked.then(|| version.clone()))
    }

    /// What the expressions of a policy know of the request, in the version that the policy is about.
    async fn inputs(
        &self,
        policy: &Policy,
        version: &GroupVersion,
        review: &Review<'_>,
    ) -> Result<Inputs, Status> {
        let shown = |object: Option<Value>| from_json(&object.unwrap_or_default());
        let mut request = review.request(version);
        // Kubernetes' request has them, and says nothing by them.
        for field in ["object", "oldObject"] {
            request[field] = Value::Null;
        }
        let namespace = match (review.namespace, policy.uses_namespace) {
            ("", _) | (_, false) => Cel::Null,
            (name, true) => {
                from_json(&self.params.namespace(name).await.map_err(Status::internal)?)
            }
        };
        Ok(Inputs::from([
            ("object", shown(review.object_in(version))),
            ("oldObject", shown(review.old_object_in(version))),
            ("request", from_json(&request)),
            ("namespaceObject", namespace),
        ]))
    }

    /// Evaluates policies, one after the other.
    async fn evaluate(&self, evaluations: &[Evaluation<'_>]) -> Vec<Outcome> {
        let work: Vec<(Arc<Policy>, Inputs)> = evaluations
            .iter()
            .map(|evaluation| (Arc::clone(evaluation.policy), evaluation.inputs.clone()))
            .collect();
        let outcomes = cel::run(move |deadline| {
            work.into_iter().map(|(policy, inputs)| policy.evaluate(inputs, deadline)).collect()
        });
        outcomes.await.unwrap_or_else(|| {
            let failed = |evaluation: &Evaluation<'_>| {
                let verdict =
                    evaluation.policy.failed("the policy could not be evaluated, or not in time");
                Outcome { verdicts: vec![verdict], ..Outcome::default() }
            };
            evaluations.iter().map(failed).collect()
        })
    }
}

/// Does with the outcomes what the bindings say: refuse, warn, record.
fn apply(
    evaluations: &[Evaluation<'_>],
    outcomes: Vec<Outcome>,
    review: &Review<'_>,
    refusals: &mut Vec<Refusal>,
) {
    let mut recorded: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (Evaluation { policy, binding, .. }, outcome) in evaluations.iter().zip(outcomes) {
        for (index, verdict) in outcome.verdicts.into_iter().enumerate() {
            let Verdict::Deny { message, .. } = &verdict else { continue };
            let acts = |action: &str| binding.actions.iter().any(|known| known == action);
            let (policy_name, name) = (&policy.name, &binding.name);
            if acts("Warn") {
                review.notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy_name}' with binding '{name}': {message}"
                ));
            }
            if acts("Audit") {
                let failure = json!([{
                    "message": message, "policy": policy_name, "binding": name,
                    "expressionIndex": index, "validationActions": binding.actions,
                }]);
                let key = "validation.policy.admission.k8s.io/validation_failure";
                review.notes.annotate(key, &failure.to_string());
            }
            if acts("Deny") {
                refusals.extend(refusal(policy, Some(binding), verdict));
            }
        }
        for message in outcome.unknown {
            let verdict = Verdict::Deny { reason: None, message };
            refusals.extend(refusal(policy, Some(binding), verdict));
        }
        for (key, mut value) in outcome.annotations {
            let end = (0..=ANNOTATION_MAX).rev().find(|end| value.is_char_boundary(*end));
            value.truncate(end.unwrap_or(0));
            let values = recorded.entry(format!("{}/{key}", policy.name)).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    for (key, values) in recorded {
        review.notes.annotate(&key, &values.join(", "));
    }
}

fn refusal(policy: &Policy, binding: Option<&Binding>, verdict: Verdict) -> Option<Refusal> {
    let Verdict::Deny { reason, message } = verdict else { return None };
    let binding = binding.map(|binding| binding.name.clone());
    Some(Refusal { policy: policy.name.clone(), binding, reason, message })
}

fn refused(refusal: &Refusal, review: &Review<'_>) -> Status {
    let Refusal { policy, binding, reason, message } = refusal;
    let with = binding.as_ref().map(|name| format!(" with binding '{name}'")).unwrap_or_default();
    let text = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {message}");
    let mut status = review.forbidden(&text);
    let reason = reason.as_deref().unwrap_or("Invalid");
    status.code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    reason.clone_into(&mut status.reason);
    let cause = Cause { message: text, ..Cause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}
