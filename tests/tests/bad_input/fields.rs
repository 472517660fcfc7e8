//! Fields that are unknown, there twice, or wrong.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_duplicate_fields_are_refused_told_or_ignored() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let twice = |object: &Value| {
        let text = object.to_string();
        text.replacen(r#""placement":"#, r#""placement":{},"placement":"#, 1)
    };
    let new = twice(&with(deployment("new"), "/spec/typo", json!(1)));
    let here = admin.get(&format!("{DEPLOYMENTS}/here")).await.json();
    let here = twice(&with(here, "/spec/typo", json!(1)));
    let patch = twice(&json!({"spec": {"typo": 1, "placement": {"clusters": []}}}));
    let yaml = "apiVersion: types.kubefed.io/v1beta1\nkind: FederatedDeployment\nmetadata: {name: new}\n\
                spec:\n  typo: 1\n  placement: {}\n  placement: {}\n";
    let problems = [r#"unknown field "spec.typo""#, r#"duplicate field "spec.placement""#];
    let strict = format!("strict decoding error: {}", problems.join(", "));
    let at_here = format!("{DEPLOYMENTS}/here");
    for (method, path, kind, body, status) in [
        ("POST", DEPLOYMENTS, JSON, new.as_str(), BAD_REQUEST),
        ("POST", DEPLOYMENTS, YAML, yaml, BAD_REQUEST),
        ("PUT", &at_here, JSON, &here, BAD_REQUEST),
        ("PATCH", &at_here, MERGE, &patch, INVALID),
    ] {
        let mut send = async |validation: &str| {
            let path = format!("{path}?dryRun=All&fieldValidation={validation}");
            admin.send(method, &path, &[("content-type", kind)], body.to_owned()).await
        };
        let answer = send("Strict").await;
        let refused = assert_refused(&answer, body, status, &strict);
        let field = if status == INVALID { vec![("patch", "FieldValueInvalid")] } else { vec![] };
        assert_eq!(causes(&refused), field, "{refused}");
        for (validation, told) in [("Warn", true), ("", true), ("Ignore", false)] {
            let answer = send(validation).await;
            assert!(matches!(answer.code, 200 | 201), "{}", answer.json());
            assert!(answer.json()["spec"].get("typo").is_none(), "{}", answer.json());
            let warnings: Vec<&str> =
                answer.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
            for problem in problems {
                let warning = format!("299 - \"{}\"", problem.replace('"', "\\\""));
                assert_eq!(warnings.contains(&warning.as_str()), told, "{warnings:?}");
            }
        }
        let refused = send("Never").await;
        let text = r#"fieldValidation: Unsupported value: "Never": supported values: "", "Ignore", "Strict", "Warn""#;
        assert_eq!(
            causes(&assert_refused(&refused, body, INVALID, text)),
            [("fieldValidation", "FieldValueNotSupported")]
        );
    }
    let query = "?fieldManager=m&fieldValidation=Strict";
    let headers = [("content-type", APPLY)];
    let path = format!("{DEPLOYMENTS}/new{query}");
    let answer = admin.send("PATCH", &path, &headers, yaml.replace("  typo: 1\n", "")).await;
    let text = r#"error strict decoding YAML: duplicate field "spec.placement""#;
    assert_refused(&answer, "apply", BAD_REQUEST, text);
    let answer = admin.send("PATCH", &path, &headers, yaml.replace("  placement: {}\n", "")).await;
    assert_refused(&answer, "apply", BAD_REQUEST, ".spec.typo: field not declared in schema");
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "X", "name": name, "uid": "u", "controller": true});
    let first_override = "spec.overrides[0].clusterOverrides[0].path";
    for (path, base, pointer, value, wanted, text) in [
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec",
            json!(5),
            &[("spec", "FieldValueTypeInvalid")][..],
            r#"FederatedDeployment.types.kubefed.io "x" is invalid: spec: Invalid value: "integer": spec in body must be of type object: "integer""#,
        ),
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec/template/spec/replicas",
            json!("many"),
            &[("spec.template.spec.replicas", "FieldValueTypeInvalid")],
            "must be of type integer",
        ),
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec/overrides/0/clusterOverrides/0/path",
            json!("/metadata/name"),
            &[(first_override, "FieldValueForbidden")],
            "/metadata/name cannot be overridden",
        ),
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec/overrides/0/clusterOverrides/0/path",
            json!("spec"),
            &[(first_override, "FieldValueInvalid")],
            "does not start with '/'",
        ),
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec/overrides/0/clusterOverrides/0/op",
            json!("move"),
            &[("spec.overrides[0].clusterOverrides[0].op", "FieldValueNotSupported")],
            r#"supported values: "", "add", "remove", "replace""#,
        ),
        (
            DEPLOYMENTS,
            deployment("x"),
            "/spec/overrides/0/clusterName",
            json!(""),
            &[("spec.overrides[0].clusterName", "FieldValueRequired")],
            "Required value",
        ),
        (
            CLUSTERS,
            cluster("x"),
            "/spec/caBundle",
            json!("aGVsbG8="),
            &[("spec.caBundle", "FieldValueInvalid")],
            "it holds no certificate; must be a PEM certificate",
        ),
        (
            CLUSTERS,
            cluster("x"),
            "/spec/caBundle",
            json!("<cert>"),
            &[("spec.caBundle", "FieldValueInvalid")],
            "it is not base64",
        ),
        (
            CLUSTERS,
            cluster("x"),
            "/spec/secretRef",
            json!({}),
            &[("spec.secretRef.name", "FieldValueRequired")],
            "Required value",
        ),
        (
            MAPS,
            map("x"),
            "/data",
            json!(5),
            &[("data", "FieldValueTypeInvalid")],
            "data in body must be of type object",
        ),
        (
            MAPS,
            map("x"),
            "/data",
            json!({"a/b": ""}),
            &[("data[a/b]", "FieldValueInvalid")],
            "a valid config key must consist of",
        ),
        (
            MAPS,
            map("x"),
            "/binaryData",
            json!({"b": "?"}),
            &[("binaryData[b]", "FieldValueInvalid")],
            "must be base64 encoded",
        ),
        (
            MAPS,
            map("Bad_Name"),
            "/data",
            json!({}),
            &[("metadata.name", "FieldValueInvalid")],
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            MAPS,
            map("a\u{0}b"),
            "/data",
            json!({}),
            &[("metadata.name", "FieldValueInvalid")],
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            MAPS,
            map(&"x".repeat(254)),
            "/data",
            json!({}),
            &[("metadata.name", "FieldValueInvalid")],
            "must be no more than 253 bytes",
        ),
        (
            MAPS,
            map(""),
            "/data",
            json!({}),
            &[("metadata.name", "FieldValueRequired")],
            "name or generateName is required",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/name",
            json!(7),
            &[("metadata.name", "FieldValueRequired"), ("metadata.name", "FieldValueTypeInvalid")],
            "metadata.name in body must be of type string",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/generateName",
            json!("Bad-"),
            &[("metadata.generateName", "FieldValueInvalid")],
            r#"metadata.generateName: Invalid value: "Bad-": "#,
        ),
        (
            MAPS,
            map("x"),
            "/metadata/labels",
            json!({"a b": "c"}),
            &[("metadata.labels", "FieldValueInvalid")],
            "name part must consist of alphanumeric characters",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/labels",
            json!({"a": "b c"}),
            &[("metadata.labels", "FieldValueInvalid")],
            "a valid label must be an empty string or consist of",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/labels",
            json!({"a": 5}),
            &[("metadata.labels.a", "FieldValueTypeInvalid")],
            "must be of type string",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/labels",
            json!([]),
            &[("metadata.labels", "FieldValueTypeInvalid")],
            "must be of type object",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/annotations",
            json!({"a b": ""}),
            &[("metadata.annotations", "FieldValueInvalid")],
            "name part must consist of",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/annotations",
            json!({"a": "x".repeat(256 * 1024)}),
            &[("metadata.annotations", "FieldValueTooLong")],
            "Too long: may not be more than 262144 bytes",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/finalizers",
            json!(["/x"]),
            &[("metadata.finalizers", "FieldValueInvalid")],
            "prefix part must be non-empty",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/finalizers",
            json!("x"),
            &[("metadata.finalizers", "FieldValueTypeInvalid")],
            "must be of type array",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/ownerReferences",
            json!([owner("a"), with(owner("b"), "/uid", json!("v"))]),
            &[("metadata.ownerReferences", "FieldValueInvalid")],
            "Only one reference can have Controller set to true",
        ),
        (
            MAPS,
            map("x"),
            "/metadata/ownerReferences",
            json!([with(owner("a"), "/uid", json!(""))]),
            &[("metadata.ownerReferences.uid", "FieldValueInvalid")],
            "must not be empty",
        ),
    ] {
        let object = with(base, pointer, value);
        let answer = admin.json("POST", path, &object).await;
        let status = assert_refused(&answer, pointer, INVALID, text);
        assert_eq!(causes(&status), wanted, "{status}");
        assert_eq!(status["details"]["kind"], object["kind"], "{status}");
    }
    assert_eq!(state(&federation).await, before);

    // NUL may stand where any text may.
    let object = with(map("nul"), "/metadata/annotations", json!({"a": "x\u{0}y"}));
    admin.create(MAPS, &object).await;
    let read = admin.get(&format!("{MAPS}/nul")).await.json();
    assert_eq!(read["metadata"]["annotations"]["a"], "x\u{0}y");

    let object = with(map("owned"), "/metadata/ownerReferences", json!([owner("a"), owner("a")]));
    let answer = admin.json("POST", MAPS, &object).await;
    assert_eq!(answer.json()["metadata"]["ownerReferences"], json!([owner("a")]));
    let warning = answer.headers.get("warning").and_then(|warning| warning.to_str().ok());
    assert!(
        warning.is_some_and(|text| text.ends_with("duplicate UID(s) observed: u\"")),
        "{warning:?}"
    );
}
