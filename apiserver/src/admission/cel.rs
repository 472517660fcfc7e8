//! Expressions in CEL, evaluated within bounds and off the threads that serve.

use std::time::{Duration, Instant};

use kube_cel::cel::Value;
use tokio::sync::{Semaphore, oneshot};

mod engine;
mod expression;

pub(super) use engine::{Inputs, OUT_OF_BUDGET, Scope, from_json};
pub(super) use expression::{Expression, Variables, compile};

/// How long the expressions of one write may be evaluated; Kubernetes' budget for one binding is about a second.
const EVALUATION: Duration = Duration::from_secs(2);
/// How long a write waits for that, its turn included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many writes are evaluated at a time: each takes a thread.
static TURNS: Semaphore = Semaphore::const_new(8);

/// Runs `work`, which is given its deadline, on a thread of its own, whose stack has room for the deepest expression.
/// `None` if that was not possible in time.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce(Instant) -> T + Send + 'static,
) -> Option<T> {
    let outcome = tokio::time::timeout(PATIENCE, async {
        let turn = TURNS.acquire().await.ok()?;
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + EVALUATION;
        let thread = std::thread::Builder::new().name("cel".into()).stack_size(engine::STACK);
        let evaluate = move || {
            let _nobody_waits_any_more = sender.send(work(deadline));
            drop(turn);
        };
        thread.spawn(evaluate).ok()?;
        receiver.await.ok()
    });
    outcome.await.ok().flatten()
}

/// Whether all conditions hold. One that does not settles it, whatever is wrong with others.
///
/// # Errors
/// What is wrong with those that have no value.
pub(super) fn hold(conditions: &[Expression], scope: &Scope) -> Result<bool, String> {
    let mut wrong = Vec::new();
    for condition in conditions {
        match scope.value(condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => wrong.push(why),
        }
    }
    match wrong.as_slice() {
        [] => Ok(true),
        [why] => Err(why.clone()),
        whys => Err(format!("[{}]", whys.join(", "))),
    }
}
