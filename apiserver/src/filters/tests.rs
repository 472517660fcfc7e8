//! The chain around handlers that wait, fail or answer.

use async_trait::async_trait;
use axum::http::StatusCode;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;

/// Believes the user and groups that a test writes into two headers.
struct Believing;

#[async_trait]
impl Authenticator for Believing {
    async fn authenticate(
        &self,
        _: Option<&ConnectionInfo>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, Status> {
        let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        match text("test-user") {
            Some(name) => {
                Ok(UserInfo::authenticated(name, text("test-group").into_iter().collect()))
            }
            None => Ok(UserInfo::anonymous()),
        }
    }
}

/// Allows what is no impersonation and is not called forbidden.
struct Allowing;

#[async_trait]
impl Authorizer for Allowing {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        let request = attributes.request;
        if request.verb == "impersonate" || request.resource == "forbidden" {
            Ok(Decision::Deny(String::new()))
        } else {
            Ok(Decision::Allow)
        }
    }
}

async fn handler(request: Request) -> Response<Body> {
    if request.uri().path().contains("slow") {
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    assert!(!request.uri().path().contains("panic"), "a handler that fails");
    let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
    Response::new(Body::from(names.join(" ")))
}

fn filters() -> Filters {
    Filters::new(Arc::new(Believing), Arc::new(Allowing), Arc::default(), &Serving::default())
}

async fn send(filters: &Arc<Filters>, uri: &str, headers: &[(&str, &str)]) -> Response<Body> {
    send_by(Method::GET, filters, uri, headers).await
}

async fn send_by(
    method: Method,
    filters: &Arc<Filters>,
    uri: &str,
    headers: &[(&str, &str)],
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let app = chain(Router::new().fallback(handler), filters);
    app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn status(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    (code, serde_json::from_str(&text(response).await).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_after_a_minute_or_the_time_it_asks_for() {
    let filters = Arc::new(filters());
    let started = tokio::time::Instant::now();
    for (query, seconds) in [("", 60), ("?timeout=3s", 63), ("?timeout=5m", 123)] {
        let response = send(&filters, &format!("/api/v1/slow{query}"), &[]).await;
        let (code, status) = status(response).await;
        assert_eq!((code, status["reason"].as_str()), (504, Some("Timeout")));
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
    let (code, status) = status(send(&filters, "/api/v1/slow?timeout=soon", &[]).await).await;
    assert_eq!(code, 400);
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("invalid timeout specified in the request URL"), "{message}");
    // A watch lasts as long as it likes.
    let response = send(&filters, "/api/v1/slow?watch=1", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_at_a_time_are_told_to_come_again() {
    let filters = Arc::new(Filters { reading: Semaphore::new(1), ..filters() });
    let first = send(&filters, "/api/v1/slow", &[]);
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = send(&filters, "/api/v1/pods", &[]).await;
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        for (uri, headers) in [
            ("/api/v1/pods?watch=1", &[][..]),
            ("/readyz", &[]),
            ("/api/v1/pods", &[("test-user", "root"), ("test-group", MASTERS)]),
        ] {
            assert_eq!(send(&filters, uri, headers).await.status(), StatusCode::OK, "{uri}");
        }
    };
    tokio::join!(first, second);
    assert_eq!(send(&filters, "/api/v1/pods", &[]).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn writers_have_a_limit_of_their_own_and_zero_is_none() {
    for (max_writing, wanted) in
        [(1, StatusCode::TOO_MANY_REQUESTS), (2, StatusCode::OK), (0, StatusCode::OK)]
    {
        let serving = Serving { max_reading: 1, max_writing, ..Serving::default() };
        let filters = Arc::new(Filters::new(
            Arc::new(Believing),
            Arc::new(Allowing),
            Arc::default(),
            &serving,
        ));
        let first = send_by(Method::POST, &filters, "/api/v1/slow", &[]);
        let second = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let second = send_by(Method::POST, &filters, "/api/v1/pods", &[]).await;
            assert_eq!(second.status(), wanted, "{max_writing}");
            assert_eq!(send(&filters, "/api/v1/pods", &[]).await.status(), StatusCode::OK);
        };
        tokio::join!(first, second);
    }
}

#[tokio::test]
async fn a_panic_is_one_requests_trouble() {
    let filters = Arc::new(filters());
    let (code, status) = status(send(&filters, "/api/v1/panic", &[]).await).await;
    assert_eq!((code, status["reason"].as_str()), (500, Some("InternalError")));
    assert_eq!(send(&filters, "/api/v1/pods", &[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_handler_sees_no_credential_and_no_claim() {
    let filters = Arc::new(filters());
    let sent = [
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-remote-user", "root"),
        ("x-remote-extra-scopes", "all"),
        ("accept", "application/json"),
    ];
    assert_eq!(text(send(&filters, "/api/v1/pods", &sent).await).await, "accept");
}

#[tokio::test]
async fn every_answer_has_its_id_and_is_not_to_be_kept() {
    let filters = Arc::new(filters());
    let long = "x".repeat(AUDIT_ID_MAX + 1);
    for (uri, code) in [("/api/v1/pods", 200), ("/api/v1/forbidden", 403)] {
        let response = send(&filters, uri, &[("audit-id", "mine")]).await;
        assert_eq!(response.status().as_u16(), code);
        assert_eq!(response.headers()["audit-id"], "mine");
        assert_eq!(response.headers()["cache-control"], "no-cache, private");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let response = send(&filters, uri, &[("audit-id", &long)]).await;
        assert_eq!(response.headers()["audit-id"].len(), 36);
    }
}

#[test]
fn probes_need_no_rights_but_what_only_begins_like_one_does() {
    let filters = filters();
    for (path, open) in [
        ("/livez", true),
        ("/readyz/store", true),
        ("/livezz", false),
        ("/healthz-all", false),
        ("/metrics", false),
    ] {
        let info = RequestInfo::new(&Method::GET, path, &Query::default());
        assert_eq!(filters.is_open(&info), open, "{path}");
        assert_eq!(is_probe(&info), open, "{path}");
    }
}

#[test]
fn paths_can_be_opened_one_by_one_or_by_how_they_begin() {
    let open_paths = ["/metrics", "/openapi/*", "/api/*"].map(String::from).to_vec();
    let filters = Filters { open_paths, ..filters() };
    for (path, open) in [
        ("/metrics", true),
        ("/metrics/slis", false),
        ("/openapi/v3/api/v1", true),
        ("/openapi", false),
        ("/livez", false),
        // No flag gives rights to objects.
        ("/api/v1/namespaces/a/secrets", false),
    ] {
        let info = RequestInfo::new(&Method::GET, path, &Query::default());
        assert_eq!(filters.is_open(&info), open, "{path}");
    }
}
