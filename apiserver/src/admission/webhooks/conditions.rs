//! The `matchConditions` of a webhook, as `plugin/webhook/matchconditions` of `k8s.io/apiserver` has them.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use kube_cel::cel::Value as Cel;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::status::Status;

use super::hook::Hook;
use crate::admission::Review;
use crate::admission::cel::{self, Expression, Inputs, Scope, Variables, from_json};

/// Conditions that are ready to be evaluated.
#[derive(Clone)]
pub(super) struct Conditions(Arc<(Variables, Vec<Expression>)>);

impl Conditions {
    pub(super) fn new(conditions: Vec<MatchCondition>) -> Self {
        let texts = conditions.into_iter().map(|condition| condition.expression).collect();
        Conditions(Arc::new(cel::compile(Vec::new(), texts)))
    }

    fn hold(&self, inputs: Inputs, deadline: std::time::Instant) -> Result<bool, String> {
        let (variables, conditions) = &*self.0;
        cel::hold(conditions, &Scope::new(inputs, variables, deadline))
    }
}

/// Whether every condition of `hook` holds, which sees the kind in `version`.
///
/// # Errors
/// 403 if that can't be told and the webhook may not fail.
pub(super) async fn hold(
    hook: &Hook,
    review: &Review<'_>,
    version: &GroupVersion,
) -> Result<bool, Status> {
    if hook.conditions.0.1.is_empty() {
        return Ok(true);
    }
    let shown = |object: Option<serde_json::Value>| object.as_ref().map_or(Cel::Null, from_json);
    let inputs = Inputs::from([
        ("object", shown(review.object_in(version))),
        ("oldObject", shown(review.old_object_in(version))),
        ("request", from_json(&review.request(version))),
    ]);
    let conditions = hook.conditions.clone();
    let held = cel::run(move |deadline| conditions.hold(inputs, deadline)).await;
    match held.unwrap_or_else(|| Err("the match conditions were not evaluated in time".into())) {
        Ok(held) => Ok(held),
        Err(why) if hook.may_fail => {
            tracing::warn!(webhook = hook.name, why, "it is not asked: its conditions failed");
            Ok(false)
        }
        Err(why) => Err(review.forbidden(why)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    #[test]
    fn every_condition_has_to_hold_and_one_that_does_not_settles_it() {
        for (texts, wanted) in [
            (vec![], Ok(true)),
            (vec!["object.metadata.name == 'a'", "request.operation == 'CREATE'"], Ok(true)),
            (vec!["true", "oldObject.spec != 1"], Err("no such overload")),
            (vec!["object.nothing", "object.metadata.name != 'a'"], Ok(false)),
            (vec!["object.nothing"], Err("no such key: nothing")),
            (vec!["object."], Err("compilation error")),
            (vec!["authorizer.path('/x').check('get').allowed()"], Err("'authorizer'")),
        ] {
            let condition =
                |text: &&str| MatchCondition { name: "x".into(), expression: (*text).into() };
            let conditions = Conditions::new(texts.iter().map(condition).collect());
            let inputs = Inputs::from([
                ("object", from_json(&json!({"metadata": {"name": "a"}}))),
                ("oldObject", Cel::Null),
                ("request", from_json(&json!({"operation": "CREATE"}))),
            ]);
            match (conditions.hold(inputs, Instant::now() + Duration::from_secs(5)), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{texts:?}"),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{texts:?}: {found}"),
                (found, _) => panic!("{texts:?}: {found:?}"),
            }
        }
    }
}
