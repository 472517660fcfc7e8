//! Bodies that are no object of their kind, or one from elsewhere.

use kubefed_apiserver::filters::body::LIMIT;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_object_of_its_kind_is_refused() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
    let not_json = format!("{unrecognized}couldn't get version/kind; json parse error: ");
    let not_yaml = format!("{unrecognized}error converting YAML to JSON: ");
    let not_object = format!("{unrecognized}it is not a JSON object");
    let bad_utf8 =
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"?"}}"#;
    let bad_utf8 = bad_utf8.map(|byte| if byte == b'?' { 0xff } else { byte }).to_vec();
    for (kind, body, text) in [
        (JSON, b"{\"apiVersion\":".to_vec(), not_json.as_str()),
        (JSON, b"{} {}".to_vec(), &not_json),
        (JSON, b"".to_vec(), &not_json),
        (JSON, b"{\"a\":\"\0\"}".to_vec(), &not_json),
        (JSON, bad_utf8.clone(), &not_json),
        (JSON, "[".repeat(3_000_000).into_bytes(), &not_json),
        (JSON, "{\"a\":".repeat(101).into_bytes(), "it nests deeper than 100 levels"),
        (JSON, b"null".to_vec(), &not_object),
        (JSON, b"[]".to_vec(), &not_object),
        (JSON, b"5".to_vec(), &not_object),
        (JSON, b"\"x\"".to_vec(), &not_object),
        (YAML, b"a: [".to_vec(), &not_yaml),
        (YAML, b"a: b: c".to_vec(), &not_yaml),
        (YAML, b"a: \xff".to_vec(), &not_yaml),
        (
            YAML,
            format!("a: {}{}", "[".repeat(40), "]".repeat(40)).into_bytes(),
            "it nests deeper than 40 levels",
        ),
        (YAML, b"- a".to_vec(), &not_object),
        (YAML, b"text".to_vec(), &not_object),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff".to_vec(), unrecognized),
    ] {
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = admin.send("POST", MAPS, &[("content-type", kind)], body.clone()).await;
        assert_refused(&answer, &what, BAD_REQUEST, text);
        let path = format!("{MAPS}/here");
        let answer = admin.send("PUT", &path, &[("content-type", kind)], body).await;
        assert_refused(&answer, &what, BAD_REQUEST, text);
    }
    for kind in ["text/plain", "application/xml", "application/jsonx", MERGE, "x"] {
        let body = map("x").to_string();
        let answer = admin.send("POST", MAPS, &[("content-type", kind)], body).await;
        let text = "the body of the request was in an unknown format - accepted media types include: application/json";
        assert_refused(&answer, kind, UNSUPPORTED, text);
    }
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_belongs_elsewhere_is_refused() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let map_here = format!("{MAPS}/here");
    let cannot = r#" in version "v1" cannot be handled as a ConfigMap: "#;
    let federated =
        r#"FederatedDeployment in version "v1beta1" cannot be handled as a FederatedDeployment: "#;
    let namespace =
        "the namespace of the provided object does not match the namespace sent on the request";
    for (method, path, object, text) in [
        ("POST", MAPS, with(map("x"), "/kind", json!("Secret")), format!("Secret{cannot}")),
        ("POST", MAPS, with(map("x"), "/kind", json!(5)), "kind is not a string".into()),
        (
            "POST",
            MAPS,
            with(map("x"), "/apiVersion", json!("v2")),
            "the API version in the data (v2) does not match the expected API version (v1)".into(),
        ),
        (
            "POST",
            MAPS,
            with(map("x"), "/apiVersion", json!([])),
            "apiVersion is not a string".into(),
        ),
        (
            "POST",
            MAPS,
            with(map("x"), "/metadata", json!("x")),
            format!("ConfigMap{cannot}metadata"),
        ),
        ("POST", MAPS, with(map("x"), "/metadata/namespace", json!("b")), namespace.into()),
        ("PUT", &map_here, with(map("here"), "/metadata/namespace", json!("b")), namespace.into()),
        (
            "PUT",
            &map_here,
            map("there"),
            "the name of the object (there) does not match the name on the URL (here)".into(),
        ),
        (
            "PUT",
            &map_here,
            with(map("x"), "/metadata", json!({})),
            "the name of the object (here based on URL) was undeterminable: name must be provided"
                .into(),
        ),
        (
            "POST",
            DEPLOYMENTS,
            without(deployment("x"), "kind"),
            format!("{federated}Object 'Kind' is missing"),
        ),
        (
            "POST",
            DEPLOYMENTS,
            without(deployment("x"), "apiVersion"),
            format!("{federated}Object 'apiVersion' is missing"),
        ),
    ] {
        let answer = admin.json(method, path, &object).await;
        assert_refused(&answer, &object.to_string(), BAD_REQUEST, &text);
    }
    let answer = admin.json("POST", "/api/v1/namespaces/none/configmaps", &map("x")).await;
    assert_refused(&answer, "no namespace", (404, "NotFound"), "namespaces \"none\" not found");
    let answer = admin.json("PUT", &format!("{MAPS}/x"), &map("x")).await;
    assert_refused(&answer, "nothing to put", (404, "NotFound"), "configmaps \"x\" not found");
    let answer = admin.json("POST", &map_here, &map("here")).await;
    assert_refused(&answer, "a name", (405, "MethodNotAllowed"), "does not allow this method");
    assert_eq!(state(&federation).await, before);

    // Kubernetes' own kinds need not say what the path says.
    let bare = json!({"metadata": {"name": "x"}});
    let created = admin.json("POST", MAPS, &bare).await.json();
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_as_large_as_the_limit_and_no_larger() {
    let (federation, mut admin) = a_federation_with_objects().await;
    // White space counts, but is not stored.
    let padded = |name: &str, length: usize| {
        let body = map(name).to_string();
        " ".repeat(length - body.len()) + &body
    };
    let answer = admin.send("POST", MAPS, &[("content-type", JSON)], padded("full", LIMIT)).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let before = state(&federation).await;
    for length in [LIMIT + 1, 4 * 1024 * 1024] {
        let mut admin = federation.raw_h2(ADMIN).await;
        let answer =
            admin.send("POST", MAPS, &[("content-type", JSON)], padded("more", length)).await;
        let text = "Request entity too large: limit is 3145728";
        assert_refused(&answer, "too large a body", TOO_LARGE, text);
    }
    let large = "x".repeat(2 * 1024 * 1024);
    let object = with(deployment("x"), "/spec/overrides/0/clusterOverrides/0/value", json!(large));
    let answer = admin.json("POST", DEPLOYMENTS, &object).await;
    assert_refused(&answer, "too large an object", TOO_LARGE, "Request entity too large: ");
    let answer = admin.json("POST", MAPS, &with(map("x"), "/data/a", json!(large))).await;
    let text = r#"ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes"#;
    assert_refused(&answer, "too large a map", INVALID, text);
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nests_deep_is_refused_and_not_emptied() {
    let (federation, mut admin) = a_federation_with_objects().await;
    // The value of an override is the seventh level.
    let value = "/spec/overrides/0/clusterOverrides/0/value";
    let nested = |levels: usize| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    let deep = |name: &str, levels| with(deployment(name), value, nested(levels));
    admin.create(DEPLOYMENTS, &deep("deepest", 94)).await;
    let path = format!("{DEPLOYMENTS}/deepest");
    let here = admin.get(&path).await.json();
    assert_eq!(here.pointer(value), Some(&nested(94)));
    let before = state(&federation).await;

    let answer = admin.json("POST", DEPLOYMENTS, &deep("deeper", 95)).await;
    assert_refused(&answer, "create", BAD_REQUEST, "it nests deeper than 100 levels");
    let answer = admin.json("PUT", &path, &with(here.clone(), value, nested(95))).await;
    assert_refused(&answer, "update", BAD_REQUEST, "it nests deeper than 100 levels");
    let below = format!("{value}{}/-", "/0".repeat(93));
    let copy = format!("{value}{}/-", "/0".repeat(50));
    for patch in [
        json!([{"op": "add", "path": below, "value": []}]),
        json!([{"op": "copy", "from": value, "path": copy}]),
    ] {
        let headers = [("content-type", JSON_PATCH)];
        let answer = admin.send("PATCH", &path, &headers, patch.to_string()).await;
        let text = "the patched object nests deeper than 100 levels";
        assert_refused(&answer, "patch", INVALID, text);
    }
    assert_eq!(state(&federation).await, before);

    // Everybody can read what was taken, and write it again.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (path, accept) in [
        (path.clone(), YAML),
        (DEPLOYMENTS.to_owned(), YAML),
        (format!("{DEPLOYMENTS}?pretty=true"), JSON),
        (format!("{DEPLOYMENTS}?includeObject=Object"), table),
        (format!("{path}?includeObject=Object"), table),
        (format!("{DEPLOYMENTS}?includeObject=Object&watch=1&timeoutSeconds=1"), table),
    ] {
        let answer = admin.send("GET", &path, &[("accept", accept)], "").await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.code == 200 && text.contains("deepest"), "{path}: {text}");
    }
    let answer = admin.json("PUT", &path, &with(here, "/spec/placement", json!({}))).await;
    assert_eq!(answer.json().pointer(value), Some(&nested(94)), "{}", answer.json());
}
