//! Questions that a host answers by a `status`: TokenReview, SubjectAccessReview.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// As Kubernetes: an answer is good for 10 s, whichever it is, and is waited for as long.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
/// As Kubernetes: how often a host is asked that is not reached or has no answer, and the pauses between.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);
const GROWTH: f32 = 1.5;

/// The review with the host's answer. A caller who has less time gives up earlier: nothing goes on without one.
///
/// # Errors
/// Why there is none: nothing follows from that.
pub(crate) async fn ask<K>(host: &Api<K>, review: &K) -> Result<K, String>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let params = PostParams::default();
    let answer = async {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match host.create(&params, review).await {
                Err(error) if may_pass(&error) => {
                    tracing::debug!(%error, ?pause, "the host is asked again");
                }
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f32(GROWTH);
        }
        host.create(&params, review).await
    };
    tokio::time::timeout(TIMEOUT, answer)
        .await
        .map_err(|_| format!("no answer in {TIMEOUT:?}"))?
        .map_err(|error| error.to_string())
}

/// Whether the same question may be answered a moment later.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use http::{Request, Response};
    use k8s_openapi::api::authentication::v1::TokenReview;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// What a host does: answers with a code, breaks the connection off, or says nothing.
    #[derive(Clone, Copy)]
    enum Does {
        Answer(u16),
        Break,
        Hang,
    }
    use Does::{Answer, Break, Hang};

    /// Asks a host that does this, one thing after the other; how often it was asked, and for how long.
    async fn asked(host: &[Does]) -> (Result<TokenReview, String>, usize, Duration) {
        let script = Arc::new(Mutex::new(VecDeque::from(host.to_vec())));
        let left = Arc::clone(&script);
        let service = tower::service_fn(move |_: Request<Body>| {
            let next = script.lock().pop_front().expect("it is asked no more than that");
            async move {
                let code = match next {
                    Hang => std::future::pending().await,
                    Break => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                    Answer(code) => code,
                };
                let body = match code {
                    201 => json!({"metadata": {}, "spec": {}, "status": {"authenticated": true}}),
                    _ => json!({"kind": "Status", "status": "Failure", "code": code}),
                };
                let body = Body::from(body.to_string().into_bytes());
                Ok(Response::builder().status(code).body(body).expect("an answer"))
            }
        });
        let api = Api::all(kube::Client::new(service, "default"));
        let began = Instant::now();
        let outcome = ask(&api, &TokenReview::default()).await;
        let times = host.len() - left.lock().len();
        (outcome, times, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_away_for_a_moment_is_asked_again() {
        for (host, times) in [
            (&[Answer(201)][..], 1),
            (&[Break, Answer(201)], 2),
            (&[Answer(500), Answer(503), Answer(429), Answer(201)], 4),
            (&[Break, Break, Break, Break, Answer(201)], 5),
        ] {
            let (outcome, asked, took) = asked(host).await;
            assert!(
                outcome.expect("an answer").status.is_some_and(|s| s.authenticated == Some(true))
            );
            assert_eq!(asked, times);
            let pauses: f32 = (1..times).map(|n| 0.5 * GROWTH.powi(n as i32 - 1)).sum();
            assert!((took.as_secs_f32() - pauses).abs() < 0.05, "{took:?} instead of {pauses} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stays_away_is_given_up() {
        let (outcome, times, took) = asked(&[Break; 9]).await;
        assert!(outcome.is_err());
        assert_eq!(times, ATTEMPTS);
        assert!(took < Duration::from_secs(5), "{took:?}");
        let (outcome, times, took) = asked(&[Break, Hang, Answer(201)]).await;
        assert_eq!(outcome.expect_err("no answer"), "no answer in 10s");
        assert_eq!((times, took.as_secs()), (2, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer() {
        for code in [400, 401, 403, 404, 422] {
            let (outcome, times, _) = asked(&[Answer(code), Answer(201)]).await;
            assert!(outcome.is_err(), "{code}");
            assert_eq!(times, 1, "{code}");
        }
    }
}
