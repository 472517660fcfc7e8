//! What each kind refuses, and in which words.

use super::*;
use crate::federated::TargetSchema;

const CA: &str = include_str!("../../testdata/ca.pem");

/// The errors of a base object with some changes.
fn errors(base: &Value, changes: &[(&str, Value)]) -> Vec<String> {
    let (unknown, errors) = check(&mut changed(base, changes));
    assert_eq!(unknown, Vec::<String>::new());
    errors
}

/// Changes of a base object, and the errors that they meet.
type Row<'a> = (&'a [(&'a str, Value)], &'a [&'a str]);

fn assert_table(base: &Value, table: &[Row<'_>]) {
    assert_eq!(errors(base, &[]), Vec::<String>::new(), "{base}");
    for (changes, wanted) in table {
        assert_eq!(errors(base, changes), *wanted, "{changes:?}");
    }
}

#[test]
fn a_config_is_refused_with_all_that_is_wrong() {
    let mut base = guide("2.2");
    check(&mut base);
    assert_table(
        &base,
        &[
            (&[("/spec/scope", json!(null))], &["spec.scope: Required value"]),
            (
                &[("/spec/scope", json!("All"))],
                &[
                    r#"spec.scope: Unsupported value: "All": supported values: "Cluster", "Namespaced""#,
                ],
            ),
            (
                &[
                    ("/spec/controllerDuration/availableDelay", json!("0s")),
                    ("/spec/clusterHealthCheck/period", json!("fast")),
                    ("/spec/clusterHealthCheck/failureThreshold", json!(0)),
                    ("/spec/syncController/maxConcurrentReconciles", json!(-1)),
                ],
                &[
                    r#"spec.controllerDuration.availableDelay: Invalid value: "0s": should be greater than 0"#,
                    r#"spec.clusterHealthCheck.period: Invalid value: "fast": time: invalid duration "fast""#,
                    "spec.clusterHealthCheck.failureThreshold: Invalid value: 0: should be greater than 0",
                    "spec.syncController.maxConcurrentReconciles: Invalid value: -1: should be greater than 0",
                ],
            ),
            (
                &[("/spec/leaderElect/leaseDuration", json!("10s"))],
                &[
                    r#"spec.leaderElect.leaseDuration: Invalid value: "10s": should be greater than renewDeadline"#,
                ],
            ),
            (
                &[("/spec/leaderElect/renewDeadline", json!("6s"))],
                &[
                    r#"spec.leaderElect.renewDeadline: Invalid value: "6s": should be greater than retryPeriod*JitterFactor(1.2)"#,
                ],
            ),
            (&[("/spec/leaderElect/renewDeadline", json!("6100ms"))], &[]),
            (&[("/spec/leaderElect/resourceLock", json!("leases"))], &[]),
            (
                &[("/spec/leaderElect/resourceLock", json!("pods"))],
                &[
                    r#"spec.leaderElect.resourceLock: Unsupported value: "pods": supported values: "configmaps", "endpoints", "leases""#,
                ],
            ),
            (
                &[("/spec/syncController/adoptResources", json!("Yes"))],
                &[
                    r#"spec.syncController.adoptResources: Unsupported value: "Yes": supported values: "Enabled", "Disabled""#,
                ],
            ),
            (
                &[(
                    "/spec/featureGates",
                    json!([
                        {"name": "PushReconciler", "configuration": "Enabled"},
                        {"name": "PushReconciler", "enabled": false},
                        {"name": "Nonesuch", "enabled": true},
                        {"name": "SchedulerPreferences"},
                        {"name": "RawResourceStatusCollection", "configuration": "Disabled", "enabled": true},
                    ]),
                )],
                &[
                    r#"spec.featureGates[1].name: Duplicate value: "PushReconciler""#,
                    r#"spec.featureGates[2].name: Unsupported value: "Nonesuch": supported values: "PushReconciler", "RawResourceStatusCollection", "SchedulerPreferences""#,
                    "spec.featureGates[3].configuration: Required value: or enabled",
                    "spec.featureGates[4].enabled: Invalid value: true: contradicts configuration",
                ],
            ),
            // What is left out has its default.
            (&[("/spec/leaderElect", json!(null)), ("/spec/featureGates", json!(null))], &[]),
            (&[("/spec/clusterHealthCheck", json!({"period": "1s"}))], &[]),
        ],
    );
    let (kind, _) = definition_of(&base).unwrap();
    let cluster_wide = changed(&base, &[("/spec/scope", json!("Cluster"))]);
    let refused = (kind.strategy.validate_update)(&cluster_wide, &base);
    assert_eq!(
        refused[0].to_string(),
        r#"spec.scope: Invalid value: "Cluster": field is immutable"#
    );
}

#[test]
fn a_config_is_completed_with_kubefeds_defaults() {
    let mut config = json!({"apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "spec": {"scope": "Cluster"}});
    assert_eq!(check(&mut config), (vec![], vec![]));
    assert_eq!(
        config["spec"],
        json!({
            "scope": "Cluster",
            "controllerDuration": {"availableDelay": "20s", "unavailableDelay": "60s", "cacheSyncTimeout": "5m"},
            "leaderElect": {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "5s", "resourceLock": "configmaps"},
            "clusterHealthCheck": {"period": "10s", "failureThreshold": 3, "successThreshold": 1, "timeout": "3s"},
            "syncController": {"maxConcurrentReconciles": 1, "adoptResources": "Enabled"},
            "statusController": {"maxConcurrentReconciles": 1},
        })
    );
}

#[test]
fn gates_are_read_in_either_spelling() {
    let gates = json!({"spec": {"featureGates": [
        {"name": "PushReconciler", "enabled": false},
        {"name": "RawResourceStatusCollection", "configuration": "Enabled"},
    ]}});
    for (name, wanted) in [
        ("PushReconciler", false),
        ("RawResourceStatusCollection", true),
        ("SchedulerPreferences", true),
    ] {
        assert_eq!(kubefedconfig::gate(&gates, name), wanted, "{name}");
    }
    assert!(!kubefedconfig::gate(&json!({}), "RawResourceStatusCollection"));
}

#[test]
fn a_cluster_is_refused_with_all_that_is_wrong() {
    use base64::Engine as _;
    let encode = |bytes: &str| json!(base64::prelude::BASE64_STANDARD.encode(bytes));
    let base = changed(&guide("3.1"), &[("/spec/caBundle", encode(CA))]);
    let no_certificate = r#"spec.caBundle: Invalid value: "<binary>": it holds no certificate; must be a PEM certificate, base64-encoded: base64 -w0 < ca.crt"#;
    assert_table(
        &base,
        &[
            (&[("/spec/caBundle", json!(null))], &[]),
            (&[("/spec/caBundle", encode(&format!("a comment\n{CA}{CA}")))], &[]),
            (
                &[("/spec/caBundle", json!("<base64-encoded-ca-cert>"))],
                &[
                    r#"spec.caBundle: Invalid value: "<base64-encoded-ca-cert>": it is not base64; must be a PEM certificate, base64-encoded: base64 -w0 < ca.crt"#,
                ],
            ),
            (&[("/spec/caBundle", encode("hello"))], &[no_certificate]),
            (
                &[("/spec/caBundle", encode(&CA.replace("CERTIFICATE", "PRIVATE KEY")))],
                &[no_certificate],
            ),
            (
                &[("/spec/apiEndpoint", json!("")), ("/spec/secretRef/name", json!(""))],
                &["spec.apiEndpoint: Required value", "spec.secretRef.name: Required value"],
            ),
            (&[("/spec/secretRef", json!(null))], &["spec.secretRef: Required value"]),
            (&[("/spec/apiEndpoint", json!("cluster1"))], &[]),
            (
                &[("/spec/apiEndpoint", json!("ftp://a"))],
                &[
                    r#"spec.apiEndpoint: Invalid value: "ftp://a": scheme "ftp" is not supported: supported values: "http", "https""#,
                ],
            ),
            (
                &[("/spec/apiEndpoint", json!("https://a:x"))],
                &[
                    r#"spec.apiEndpoint: Invalid value: "https://a:x": error converting port to integer: "x" is not a port"#,
                ],
            ),
            (&[("/spec/disabledTLSValidations", json!(["SubjectName", "ValidityPeriod"]))], &[]),
            (
                &[("/spec/disabledTLSValidations", json!(["All"]))],
                &[
                    r#"spec.disabledTLSValidations[0]: Unsupported value: "All": supported values: "*", "SubjectName", "ValidityPeriod""#,
                ],
            ),
            (
                &[("/spec/disabledTLSValidations", json!(["*", "SubjectName"]))],
                &[
                    r#"spec.disabledTLSValidations: Invalid value: ["*","SubjectName"]: when * is specified, it is expected to be the only option in list"#,
                ],
            ),
            (&[("/spec/proxyURL", json!(""))], &[]),
            (&[("/spec/proxyURL", json!("socks5://proxy:1080"))], &[]),
            (
                &[("/spec/proxyURL", json!("ftp://proxy"))],
                &[
                    r#"spec.proxyURL: Invalid value: "ftp://proxy": proxy URL scheme must be one of: [http, https, socks5]"#,
                ],
            ),
        ],
    );
    let (kind, _) = definition_of(&base).unwrap();
    let status = json!({"status": {"conditions": [{"type": "Fine", "status": "Yes"}]}});
    let refused: Vec<String> =
        (kind.strategy.validate_status)(&status, &base).iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            r#"status.conditions[0].type: Unsupported value: "Fine": supported values: "ConfigMalformed", "Offline", "Ready""#,
            r#"status.conditions[0].status: Unsupported value: "Yes": supported values: "False", "True", "Unknown""#,
            "status.conditions[0].lastProbeTime: Required value",
        ]
    );
}

#[test]
fn a_type_config_is_refused_with_all_that_is_wrong() {
    let base = guide("4.1");
    assert_table(
        &base,
        &[
            (
                &[("/metadata/name", json!("deployments"))],
                &[
                    r#"metadata.name: Invalid value: "deployments": name must be 'TARGET_PLURAL_NAME(.TARGET_GROUP_NAME)'"#,
                ],
            ),
            (&[("/spec/propagation", json!(null))], &["spec.propagation: Required value"]),
            (
                &[("/spec/propagation", json!("On"))],
                &[
                    r#"spec.propagation: Unsupported value: "On": supported values: "Enabled", "Disabled""#,
                ],
            ),
            (
                &[("/spec/federatedType", json!({}))],
                &[
                    "spec.federatedType.group: Required value",
                    "spec.federatedType.version: Required value",
                    "spec.federatedType.kind: Required value",
                    "spec.federatedType.pluralName: Required value",
                    "spec.federatedType.scope: Required value",
                ],
            ),
            (
                &[("/spec/federatedType/group", json!("types"))],
                &[
                    r#"spec.federatedType.group: Invalid value: "types": should be a domain with at least one dot"#,
                ],
            ),
            (&[("/spec/federatedType/group", json!("types.example.com"))], &[]),
            // A kind of its own must not be taken away from the server.
            (
                &[("/spec/federatedType/group", json!("rbac.authorization.k8s.io"))],
                &[
                    r#"spec.federatedType.group: Invalid value: "rbac.authorization.k8s.io": is reserved for kinds of Kubernetes itself"#,
                ],
            ),
            (
                &[
                    ("/spec/federatedType/group", json!("core.kubefed.io")),
                    ("/spec/federatedType/pluralName", json!("kubefedclusters")),
                ],
                &[
                    r#"spec.federatedType.pluralName: Invalid value: "kubefedclusters": is a kind of the federation itself in core.kubefed.io"#,
                ],
            ),
            (
                &[("/spec/federatedType/kind", json!("FederatedTypeConfig"))],
                &[
                    r#"spec.federatedType.kind: Invalid value: "FederatedTypeConfig": is a kind of the federation itself in types.kubefed.io"#,
                ],
            ),
            (&[("/spec/federatedType/group", json!("notk8s.io"))], &[]),
            (
                &[(
                    "/spec/statusType",
                    json!({"group": "core.kubefed.io", "version": "v1alpha1", "kind": "FederatedServiceStatus", "pluralName": "federatedservicestatuses", "scope": "Namespaced"}),
                )],
                &[],
            ),
            (&[("/spec/statusCollection", json!("Enabled"))], &[]),
        ],
    );
    let bad_labels = errors(
        &base,
        &[
            ("/spec/federatedType/kind", json!("No Kind")),
            ("/spec/targetType/version", json!("V1")),
        ],
    );
    let paths: Vec<&str> =
        bad_labels.iter().filter_map(|e| e.split_once(": ")).map(|e| e.0).collect();
    assert_eq!(paths, ["spec.targetType.version", "spec.federatedType.kind"]);

    let (kind, _) = definition_of(&base).unwrap();
    let refused: Vec<String> =
        (kind.strategy.validate_status)(&json!({"status": {"observedGeneration": -1}}), &base)
            .iter()
            .map(ToString::to_string)
            .collect();
    assert_eq!(
        refused,
        [
            "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
            "status.propagationController: Required value",
        ]
    );
}

#[test]
fn a_domain_is_named_in_either_spelling() {
    let base = guide("5.1");
    assert_table(
        &base,
        &[
            (&[("/spec", json!(null)), ("/domain", json!("example.com"))], &[]),
            (&[("/domain", json!("example.com"))], &[]),
            (&[("/spec", json!({}))], &["spec.domain: Required value"]),
            (
                &[("/domain", json!("example.org"))],
                &[r#"spec.domain: Invalid value: "example.com": contradicts domain"#],
            ),
        ],
    );
    assert_eq!(dns::domain_of(&json!({"domain": "a.b", "spec": {"domain": ""}})), Some("a.b"));
    let record = json!({"apiVersion": "multiclusterdns.kubefed.io/v1alpha1", "kind": "ServiceDNSRecord", "spec": {"domainRef": "example"}});
    assert_table(
        &record,
        &[(&[("/spec/domainRef", json!(null))], &["spec.domainRef: Required value"])],
    );
}

#[test]
fn a_preference_or_strategy_is_refused_with_all_that_is_wrong() {
    assert_table(
        &guide("6.1"),
        &[
            (
                &[
                    ("/spec/targetKind", json!("FederatedJob")),
                    ("/spec/clusters/cluster1/maxReplicas", json!(1)),
                ],
                &[
                    r#"spec.targetKind: Unsupported value: "FederatedJob": supported values: "FederatedDeployment", "FederatedReplicaSet""#,
                    "spec.clusters[cluster1].maxReplicas: Invalid value: 1: must not be less than minReplicas",
                ],
            ),
            (&[("/spec/totalReplicas", json!(null))], &["spec.totalReplicas: Required value"]),
            (&[("/spec/clusters", json!({"*": {"weight": 1}}))], &[]),
            (&[("/spec/clusters", json!(null))], &[]),
        ],
    );
    assert_table(
        &guide("6.2"),
        &[
            (
                &[("/spec/spreadPolicy", json!({}))],
                &["spec.spreadPolicy.spreadByField: Required value"],
            ),
            (
                &[("/spec/spreadPolicy/weightedFields/1", json!({"name": "rack"}))],
                &["spec.spreadPolicy.weightedFields[1].weight: Required value"],
            ),
        ],
    );
}

/// A deployment's schema, as small as it can be and still have what matters.
fn deployment() -> TargetSchema {
    let documents = json!({
        "Deployment": {
            "type": "object",
            "required": ["metadata", "spec"],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"$ref": "#/components/schemas/ObjectMeta"},
                "spec": {"allOf": [{"$ref": "#/components/schemas/DeploymentSpec"}]},
                "status": {"type": "object"},
            },
        },
        "ObjectMeta": {"type": "object", "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        }},
        "DeploymentSpec": {"type": "object", "required": ["selector"], "properties": {
            "replicas": {"type": "integer", "format": "int32", "default": 1},
            "selector": {"type": "object"},
            "ports": {"type": "array", "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}},
        }},
    });
    TargetSchema {
        documents: serde_json::from_value(documents).unwrap(),
        name: "Deployment".into(),
        short_names: vec!["fdeploy".into()],
    }
}

#[test]
fn a_template_is_checked_against_its_target() {
    let config = FederatedTypeConfig::from_value(&guide("4.1")).unwrap();
    let kind = federated::definition(&config, Some(deployment())).unwrap();
    assert_eq!(kind.short_names, ["fdeploy"]);
    assert_eq!(
        kind.subresources.scale.as_ref().unwrap().spec_replicas,
        "spec.template.spec.replicas"
    );
    let schema = &kind.versions[0].schema;
    let base = json!({"spec": {"template": {"spec": {"selector": {"x": 1}, "ports": [{}]}}, "retainReplicas": true}});
    for (changes, unknown, wrong) in [
        (vec![], vec![], vec![]),
        (
            vec![("/spec/template/spec/replica", json!(3))],
            vec!["spec.template.spec.replica"],
            vec![],
        ),
        (vec![("/spec/template/status", json!({}))], vec!["spec.template.status"], vec![]),
        (
            vec![
                ("/spec/template/spec/selector", json!(null)),
                ("/spec/template/spec/replicas", json!("three")),
            ],
            vec![],
            vec!["spec.template.spec.selector", "spec.template.spec.replicas"],
        ),
        (
            vec![
                ("/spec/template/apiVersion", json!("apps/v1")),
                ("/spec/template/kind", json!("Deployment")),
                ("/spec/template/metadata", json!({"labels": {"a": "b"}})),
            ],
            vec![],
            vec![],
        ),
        (
            vec![(
                "/spec/overrides",
                json!([{"clusterName": "a", "clusterOverrides": [{"op": "move", "path": "/x"}, {"value": 1}]}]),
            )],
            vec![],
            vec![
                "spec.overrides[0].clusterOverrides[0].op",
                "spec.overrides[0].clusterOverrides[1].path",
            ],
        ),
        (vec![("/spec", json!(null))], vec![], vec!["spec"]),
    ] {
        let mut object = changed(&base, &changes);
        assert_eq!(schema.prune(&mut object), unknown, "{changes:?}");
        let given = object.clone();
        schema.default(&mut object);
        assert_eq!(object, given, "what others hash is kept as it was written");
        let paths: Vec<String> =
            schema.validate(&object).into_iter().map(|error| error.path).collect();
        assert_eq!(paths, wrong, "{changes:?}");
    }
}

#[test]
fn a_federated_kind_needs_no_schema_of_its_target() {
    let config = FederatedTypeConfig::from_value(&guide("4.1")).unwrap();
    let kind = federated::definition(&config, None).unwrap();
    assert!(kind.subresources.scale.is_none());
    let mut object = json!({"spec": {"template": {"anything": [1, {"goes": null}]}, "unheard": 1}});
    assert_eq!(kind.versions[0].schema.prune(&mut object), ["spec.unheard"]);
    assert_eq!(object["spec"]["template"], json!({"anything": [1, {"goes": null}]}));
}

#[test]
fn what_a_template_says_in_vain_is_told() {
    let object =
        changed(&guide("4.2"), &[("/spec/template/metadata/annotations", json!({"a": "b"}))]);
    let (kind, _) = definition_of(&object).unwrap();
    assert_eq!((kind.strategy.warnings)(&guide("4.2")), Vec::<String>::new());
    assert_eq!(
        (kind.strategy.warnings)(&object),
        [
            "spec.template.metadata.annotations is not propagated; an override of /metadata/annotations is"
        ]
    );
    let mut namespace = json!({"apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace", "metadata": {"name": "a", "namespace": "a"}, "spec": {}});
    let (kind, _) = definition_of(&namespace).unwrap();
    assert_eq!((kind.strategy.warnings)(&namespace), Vec::<String>::new());
    namespace["metadata"]["name"] = json!("b");
    assert_eq!((kind.strategy.warnings)(&namespace).len(), 1);
}
