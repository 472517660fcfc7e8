//! Patches that cannot be read, do not fit, or would make something else of an object.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_patch_changes_nothing() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let (map_here, here) = (format!("{MAPS}/here"), format!("{DEPLOYMENTS}/here"));
    let does_not_fit = "the server rejected our request due to an error in our request";
    let no_patch = "error decoding patch: ";
    let name = "the name of the object (there) does not match the name on the URL (here)";
    let namespace =
        "the namespace of the provided object does not match the namespace sent on the request";
    let uid = "Precondition failed: UID in precondition: x, UID in object meta: ";
    let kind = "a patch may not change apiVersion or kind";
    let many =
        json!(vec![json!({"op": "test", "path": "/kind", "value": "x"}); 10_001]).to_string();
    for (path, type_, patch, status, text) in [
        (&here, JSON_PATCH, r#"[{"op":"remove","path":"/spec/none"}]"#, INVALID, does_not_fit),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"add","path":"/spec/no/such","value":1}]"#,
            INVALID,
            does_not_fit,
        ),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"replace","path":"/spec/overrides/7","value":1}]"#,
            INVALID,
            does_not_fit,
        ),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"copy","from":"/none","path":"/spec/x"}]"#,
            INVALID,
            does_not_fit,
        ),
        (&here, JSON_PATCH, r#"[{"op":"test","path":"/kind","value":"x"}]"#, INVALID, does_not_fit),
        (&here, JSON_PATCH, r#"[{"op":"explode","path":"/spec"}]"#, INVALID, does_not_fit),
        (&here, JSON_PATCH, r#"[{"op":"remove","path":"spec"}]"#, INVALID, does_not_fit),
        (&here, JSON_PATCH, r#"[{"op":"remove"}]"#, BAD_REQUEST, no_patch),
        (&here, JSON_PATCH, r#"[{"op":5,"path":"/spec"}]"#, BAD_REQUEST, no_patch),
        (&here, JSON_PATCH, r#"{"op":"remove","path":"/spec"}"#, BAD_REQUEST, no_patch),
        (&here, JSON_PATCH, "[", BAD_REQUEST, no_patch),
        (&here, JSON_PATCH, "", BAD_REQUEST, no_patch),
        (
            &here,
            JSON_PATCH,
            &many,
            TOO_LARGE,
            "The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"replace","path":"","value":5}]"#,
            BAD_REQUEST,
            "is not a Kubernetes object",
        ),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"replace","path":"/metadata","value":5}]"#,
            BAD_REQUEST,
            "is not a Kubernetes object",
        ),
        (
            &here,
            JSON_PATCH,
            r#"[{"op":"replace","path":"/metadata/name","value":"there"}]"#,
            BAD_REQUEST,
            name,
        ),
        (&here, JSON_PATCH, r#"[{"op":"remove","path":"/kind"}]"#, BAD_REQUEST, kind),
        (&here, MERGE, r#"{"metadata":{"name":"there"}}"#, BAD_REQUEST, name),
        (&here, MERGE, r#"{"metadata":{"namespace":"b"}}"#, BAD_REQUEST, namespace),
        (&here, MERGE, r#"{"metadata":{"uid":"x"}}"#, CONFLICT, uid),
        (
            &here,
            MERGE,
            r#"{"metadata":{"resourceVersion":"1"}}"#,
            CONFLICT,
            "the object has been modified",
        ),
        (&here, MERGE, r#"{"kind":"ConfigMap"}"#, BAD_REQUEST, kind),
        (&here, MERGE, r#"{"apiVersion":"v1"}"#, BAD_REQUEST, kind),
        (&here, MERGE, r#"{"spec":5}"#, INVALID, "spec in body must be of type object"),
        (&here, MERGE, r#"{"spec":null}"#, INVALID, "spec: Required value"),
        (&here, MERGE, "[]", BAD_REQUEST, no_patch),
        (&here, MERGE, "{\"a\":\"\u{0}\"}", BAD_REQUEST, no_patch),
        (&here, MERGE, "5", BAD_REQUEST, no_patch),
        (&here, MERGE, "{", BAD_REQUEST, no_patch),
        (&here, STRATEGIC, "{}", UNSUPPORTED, "application/merge-patch+json"),
        (&here, JSON, "{}", UNSUPPORTED, "application/merge-patch+json"),
        (
            &map_here,
            STRATEGIC,
            r#"{"data":{"$patch":"explode"}}"#,
            BAD_REQUEST,
            r#"unknown patch type: "explode""#,
        ),
        (&map_here, STRATEGIC, r#"{"metadata":{"name":"there"}}"#, BAD_REQUEST, name),
        (&map_here, STRATEGIC, "[]", BAD_REQUEST, no_patch),
    ] {
        let answer = admin.send("PATCH", path, &[("content-type", type_)], patch.to_owned()).await;
        assert_refused(&answer, patch, status, text);
    }
    let answer =
        admin.send("PATCH", &format!("{MAPS}/none"), &[("content-type", MERGE)], "{}").await;
    assert_refused(&answer, "none", (404, "NotFound"), "configmaps \"none\" not found");
    let forced = format!("{here}?force=true");
    let answer = admin.send("PATCH", &forced, &[("content-type", MERGE)], "{}").await;
    let text = r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#;
    let status = assert_refused(&answer, "force", INVALID, text);
    assert_eq!(causes(&status), [("force", "FieldValueForbidden")]);
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_apply_changes_nothing() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let here = format!("{DEPLOYMENTS}/here");
    let config = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment",
        "metadata": {"name": "here", "namespace": "a"}, "spec": {},
    });
    let manager = "?fieldManager=m";
    for (query, config, status, text) in [
        (
            "",
            config.to_string(),
            INVALID,
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
        ),
        (manager, "a: [".into(), BAD_REQUEST, "error decoding YAML: "),
        (manager, "[]".into(), BAD_REQUEST, "Incorrect version specified in apply patch"),
        (manager, "".into(), BAD_REQUEST, "Incorrect version specified in apply patch"),
        (
            manager,
            with(config.clone(), "/apiVersion", json!("v1")).to_string(),
            BAD_REQUEST,
            "Incorrect version specified in apply patch. Specified patch version: v1, expected: types.kubefed.io/v1beta1",
        ),
        (
            manager,
            with(config.clone(), "/kind", json!("X")).to_string(),
            BAD_REQUEST,
            "invalid object type: ",
        ),
        (
            manager,
            with(config.clone(), "/metadata/name", json!("there")).to_string(),
            BAD_REQUEST,
            "the name of the object (there) does not match the name on the URL (here)",
        ),
        (
            manager,
            with(config.clone(), "/metadata/namespace", json!("b")).to_string(),
            BAD_REQUEST,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            manager,
            with(config.clone(), "/metadata/managedFields", json!([{}])).to_string(),
            BAD_REQUEST,
            "metadata.managedFields must be nil",
        ),
        (
            manager,
            with(config.clone(), "/spec", json!(5)).to_string(),
            BAD_REQUEST,
            ".spec: expected map, got integer",
        ),
        (
            manager,
            with(config.clone(), "/metadata/uid", json!("x")).to_string(),
            CONFLICT,
            "UID in precondition: x",
        ),
        (
            manager,
            with(config.clone(), "/spec/placement", json!({"clusters": []})).to_string(),
            CONFLICT,
            "Apply failed with 1 conflict: conflict with ",
        ),
    ] {
        let path = format!("{here}{query}");
        let answer = admin.send("PATCH", &path, &[("content-type", APPLY)], config.clone()).await;
        assert_refused(&answer, &config, status, text);
    }
    let gone = with(config, "/metadata", json!({"name": "none", "uid": "x"}));
    let path = format!("{DEPLOYMENTS}/none{manager}");
    let answer = admin.send("PATCH", &path, &[("content-type", APPLY)], gone.to_string()).await;
    let text =
        "uid mismatch: the provided object specified uid x, and no existing object was found";
    assert_refused(&answer, "none", CONFLICT, text);
    assert_eq!(state(&federation).await, before);
}
