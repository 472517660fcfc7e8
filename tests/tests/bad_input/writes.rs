//! Updates and deletes that must not happen.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_based_on_something_else_is_refused() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let path = format!("{DEPLOYMENTS}/here");
    let stale = admin.get(&path).await.json();
    let newer = with(stale.clone(), "/spec/placement", json!({}));
    assert_eq!(admin.json("PUT", &path, &newer).await.code, 200);
    let before = state(&federation).await;
    let live = admin.get(&path).await.json();

    let modified = "Operation cannot be fulfilled on federateddeployments.types.kubefed.io \"here\": the object has been \
                    modified; please apply your changes to the latest version and try again";
    let uid = "Precondition failed: UID in precondition: x, UID in object meta: ";
    for (object, status, text) in [
        (stale.clone(), CONFLICT, modified),
        (with(live.clone(), "/metadata/resourceVersion", json!("x")), CONFLICT, modified),
        (with(live.clone(), "/metadata/resourceVersion", json!("99999")), CONFLICT, modified),
        (with(live.clone(), "/metadata/uid", json!("x")), CONFLICT, uid),
        (
            with(live.clone(), "/metadata/resourceVersion", json!("")),
            INVALID,
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
        ),
    ] {
        for path in [path.clone(), format!("{path}/status")] {
            let sent = admin.json("PUT", &path, &object).await;
            if status == INVALID && path.ends_with("status") {
                assert_eq!(sent.code, 200, "{}", sent.json());
            } else {
                assert_refused(&sent, &path, status, text);
            }
        }
    }
    let created = with(deployment("x"), "/metadata/resourceVersion", json!("1"));
    let answer = admin.json("POST", DEPLOYMENTS, &created).await;
    let text = "resourceVersion should not be set on objects to be created";
    assert_refused(&answer, "create", BAD_REQUEST, text);
    let answer = admin.json("POST", DEPLOYMENTS, &deployment("here")).await;
    let text = "federateddeployments.types.kubefed.io \"here\" already exists";
    assert_refused(&answer, "create", (409, "AlreadyExists"), text);
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_immutable_stays() {
    let (federation, mut admin) = a_federation_with_objects().await;
    admin.create(MAPS, &with(map("fixed"), "/immutable", json!(true))).await;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "typed"}, "type": "a/b"});
    admin.create(SECRETS, &secret).await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings";
    let role = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "bound"},
        "roleRef": role("view"), "subjects": [],
    });
    admin.create(bindings, &binding).await;
    let held = with(map("held"), "/metadata/finalizers", json!(["example.com/hold"]));
    admin.create(MAPS, &held).await;
    let held = format!("{MAPS}/held");
    assert_eq!(admin.send("DELETE", &held, &[], "").await.code, 200);
    let before = state(&federation).await;
    for (path, pointer, value, cause, text) in [
        (
            format!("{MAPS}/fixed"),
            "/data",
            json!({}),
            ("data", "FieldValueForbidden"),
            "field is immutable when `immutable` is set",
        ),
        (
            format!("{MAPS}/fixed"),
            "/immutable",
            json!(false),
            ("immutable", "FieldValueForbidden"),
            "field is immutable when `immutable` is set",
        ),
        (
            format!("{SECRETS}/typed"),
            "/type",
            json!("c/d"),
            ("type", "FieldValueInvalid"),
            r#"type: Invalid value: "c/d": field is immutable"#,
        ),
        (
            format!("{bindings}/bound"),
            "/roleRef",
            role("edit"),
            ("roleRef", "FieldValueInvalid"),
            "cannot change roleRef",
        ),
        (
            held.clone(),
            "/metadata/finalizers",
            json!(["example.com/hold", "example.com/more"]),
            ("metadata.finalizers", "FieldValueForbidden"),
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/more\"}",
        ),
    ] {
        let live = admin.get(&path).await.json();
        let answer = admin.json("PUT", &path, &with(live, pointer, value)).await;
        let status = assert_refused(&answer, &path, INVALID, text);
        assert_eq!(causes(&status), [cause], "{status}");
    }
    // The server's own metadata is not refused, as in Kubernetes: it stays as it is.
    let live = admin.get(&held).await.json();
    for (field, value) in [
        ("creationTimestamp", json!("2001-01-01T00:00:00Z")),
        ("deletionTimestamp", json!(null)),
        ("generation", json!(77)),
    ] {
        let changed = with(live.clone(), &format!("/metadata/{field}"), value);
        let answer = admin.json("PUT", &held, &changed).await;
        assert_eq!(answer.json()["metadata"][field], live["metadata"][field], "{}", answer.json());
    }
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_bad_options_deletes_nothing() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let path = format!("{MAPS}/here");
    let invalid = r#"DeleteOptions.meta.k8s.io "" is invalid: "#;
    let cannot = r#"DeleteOptions in version "v1" cannot be handled as a DeleteOptions: "#;
    let conflict = "Operation cannot be fulfilled on configmaps \"here\": the ";
    for (body, status, text) in [
        (
            r#"{"propagationPolicy":"Never"}"#,
            INVALID,
            format!(
                r#"{invalid}propagationPolicy: Unsupported value: "Never": supported values: "Foreground", "Background", "Orphan", "nil""#
            ),
        ),
        (
            r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#,
            INVALID,
            format!(
                r#"{invalid}propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#
            ),
        ),
        (
            r#"{"dryRun":["Some"]}"#,
            INVALID,
            format!(r#"{invalid}dryRun: Unsupported value: "Some": supported values: "All""#),
        ),
        (
            r#"{"preconditions":{"uid":"x"}}"#,
            CONFLICT,
            format!("{conflict}UID in the precondition (x) does not match the UID in record ("),
        ),
        (
            r#"{"preconditions":{"resourceVersion":"1"}}"#,
            CONFLICT,
            format!("{conflict}ResourceVersion in the precondition (1) does not match"),
        ),
        (r#"{"preconditions":{"uid":5}}"#, BAD_REQUEST, format!("{cannot}uid: ")),
        (r#"{"preconditions":"x"}"#, BAD_REQUEST, format!("{cannot}preconditions: ")),
        (r#"{"propagationPolicy":5}"#, BAD_REQUEST, format!("{cannot}propagationPolicy: ")),
        (r#"{"orphanDependents":"no"}"#, BAD_REQUEST, format!("{cannot}orphanDependents: ")),
        (r#"{"dryRun":"All"}"#, BAD_REQUEST, format!("{cannot}dryRun: ")),
        (r#"{"kind":"Pod"}"#, BAD_REQUEST, "Pod cannot be handled as a DeleteOptions".into()),
        ("[]", BAD_REQUEST, "is a JSON object of kind DeleteOptions".into()),
        ("{", BAD_REQUEST, "(must be of type DeleteOptions): ".into()),
    ] {
        for path in [path.as_str(), MAPS] {
            // Of a collection the preconditions hold for each object.
            let answer = admin.send("DELETE", path, &[("content-type", JSON)], body).await;
            assert_refused(&answer, body, status, &text);
        }
    }
    let answer = admin.send("DELETE", &path, &[("content-type", "text/plain")], "{}").await;
    assert_refused(
        &answer,
        "text",
        UNSUPPORTED,
        "the body of the request was in an unknown format",
    );
    for (query, status, text) in [
        ("propagationPolicy=Never", INVALID, "propagationPolicy: Unsupported value"),
        ("dryRun=Some", INVALID, "dryRun: Unsupported value"),
        ("labelSelector=a%20in%20(", BAD_REQUEST, "unable to parse requirement"),
        ("fieldSelector=data%3Da", BAD_REQUEST, "is not a known field selector"),
        ("limit=x", BAD_REQUEST, "strconv.ParseInt"),
        ("continue=x", BAD_REQUEST, "invalid continue token"),
        ("resourceVersion=x", BAD_REQUEST, "invalid resource version"),
    ] {
        let answer = admin.send("DELETE", &format!("{MAPS}?{query}"), &[], "").await;
        assert_refused(&answer, query, status, text);
    }
    let answer = admin.send("DELETE", &format!("{MAPS}/none"), &[], "").await;
    assert_refused(&answer, "none", (404, "NotFound"), "configmaps \"none\" not found");
    assert_eq!(state(&federation).await, before);
}
