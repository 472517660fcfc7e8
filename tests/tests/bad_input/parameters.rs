//! Parameters and headers of requests that cannot be understood.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_understood_is_refused() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let version = r#"invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#;
    let label = "unable to parse requirement: ";
    let token = "invalid continue token: continue key is not valid: ";
    for (query, text) in [
        ("labelSelector=a%20in%20(b", format!("{label}found '', expected: ',' or ')'")),
        ("labelSelector=,", "found ',', expected: !, identifier, or 'end of string'".into()),
        ("labelSelector=-a%3Db", format!("{label}<nil>: Invalid value: \"-a\": name part must")),
        (
            "labelSelector=a%3E1.5",
            format!("{label}values[0]: Invalid value: \"1.5\": for 'Gt', 'Lt'"),
        ),
        ("fieldSelector=a", "invalid selector: 'a'; can't understand 'a'".into()),
        ("fieldSelector=a%3Db%5C", "invalid field selector: invalid escape sequence: \\".into()),
        ("limit=x", r#"strconv.ParseInt: parsing "x": invalid syntax"#.into()),
        ("limit=", r#"strconv.ParseInt: parsing "": invalid syntax"#.into()),
        ("limit=1.5", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#.into()),
        (
            "limit=99999999999999999999",
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#.into(),
        ),
        ("timeoutSeconds=soon", r#"strconv.ParseInt: parsing "soon": invalid syntax"#.into()),
        ("resourceVersion=x", version.into()),
        ("resourceVersion=-1", r#"strconv.ParseUint: parsing "-1": invalid syntax"#.into()),
        ("continue=!!!", format!("{token}it is not base64")),
        ("continue=e30", format!("{token}it is no token of a list")),
        (
            "continue=eyJ2IjoidjIiLCJydiI6MSwic3RhcnQiOiJhL2IifQ",
            format!("{token}server does not recognize this encoded version \"v2\""),
        ),
        (
            "continue=e30&resourceVersion=5",
            "specifying resource version is not allowed when using continue".into(),
        ),
    ] {
        for path in [MAPS, DEPLOYMENTS] {
            let answer = admin.get(&format!("{path}?{query}")).await;
            assert_refused(&answer, query, BAD_REQUEST, &text);
            // A watch knows no continue.
            if !query.contains("continue") {
                let answer = admin.get(&format!("{path}?watch=1&{query}")).await;
                assert_refused(&answer, query, BAD_REQUEST, &text);
            }
        }
    }
    for (path, text) in [
        (format!("{MAPS}/here?resourceVersion=x"), version),
        (
            format!("{MAPS}?fieldSelector=data.a%3Db"),
            r#""data.a" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
        (
            format!("{DEPLOYMENTS}?fieldSelector=spec.replicas%3D1"),
            "field label not supported: spec.replicas",
        ),
        (format!("{SECRETS}?watch=1&fieldSelector=data%3D1"), "field label not supported: data"),
    ] {
        assert_refused(&admin.get(&path).await, &path, BAD_REQUEST, text);
    }
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_contradict_each_other_are_named() {
    let (federation, mut admin) = a_federation_with_objects().await;
    let before = state(&federation).await;
    let matching = "resourceVersionMatch";
    for (query, field, text) in [
        ("resourceVersionMatch=Exact", matching, "is forbidden unless resourceVersion is provided"),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            matching,
            r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
        ),
        (
            "resourceVersionMatch=Newest&resourceVersion=1",
            matching,
            r#"Unsupported value: "Newest": supported values: "Exact", "NotOlderThan", """#,
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=1&continue=e30",
            matching,
            "is forbidden when continue is provided",
        ),
        ("sendInitialEvents=true", "sendInitialEvents", "sendInitialEvents is forbidden for list"),
        (
            "watch=1&sendInitialEvents=true",
            matching,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            matching,
            "is forbidden for watch unless sendInitialEvents is provided",
        ),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await;
        let status = assert_refused(&answer, query, INVALID, text);
        assert!(status["message"].as_str().is_some_and(|message| {
            message.starts_with("ListOptions.meta.k8s.io \"\" is invalid: ")
        }));
        assert_eq!(causes(&status)[0].0, field, "{status}");
    }
    for (query, field, text) in [
        ("dryRun=Some", "dryRun", r#"Unsupported value: "Some": supported values: "All""#),
        ("fieldManager=a%00b", "fieldManager", "should only contain printable characters"),
        ("fieldValidation=x", "fieldValidation", r#"Unsupported value: "x": "#),
    ] {
        let answer = admin.json("POST", &format!("{MAPS}?{query}"), &map("x")).await;
        let status = assert_refused(&answer, query, INVALID, text);
        assert_eq!(causes(&status)[0].0, field, "{status}");
    }
    let long = format!("{MAPS}?fieldManager={}", "m".repeat(129));
    let answer = admin.json("POST", &long, &map("x")).await;
    let status =
        assert_refused(&answer, "long", INVALID, "Too long: may not be more than 128 bytes");
    assert_eq!(causes(&status), [("fieldManager", "FieldValueTooLong")]);
    assert_eq!(state(&federation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_spoken_is_refused() {
    let (_federation, mut admin) = a_federation_with_objects().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let not_acceptable = (406, "NotAcceptable");
    for (path, accept, status, text) in [
        (
            MAPS.to_owned(),
            "text/html",
            not_acceptable,
            "only the following media types are accepted: application/json",
        ),
        (
            format!("{MAPS}?includeObject=All"),
            table,
            BAD_REQUEST,
            r#"includeObject: Invalid value: "All": must be 'Metadata', 'Object', 'None', or empty"#,
        ),
        (
            MAPS.to_owned(),
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            not_acceptable,
            "you requested PartialObjectMetadata, but the requested object is a list (ConfigMapList)",
        ),
        (
            format!("{MAPS}?watch=1"),
            YAML,
            not_acceptable,
            "a watch can only be had as application/json",
        ),
    ] {
        let answer = admin.send("GET", &path, &[("accept", accept)], "").await;
        // The refusal itself is in a form that the client reads, where there is one.
        if answer.headers.get("content-type").is_some_and(|kind| kind == YAML) {
            assert!(String::from_utf8_lossy(&answer.body).contains(text), "{:?}", answer.body);
            continue;
        }
        assert_refused(&answer, &path, status, text);
    }
    assert_eq!(admin.get(MAPS).await.code, 200);
}
