//! What a real host has to say in writes of our kinds: its quotas, and its admission policies.

use std::time::Duration;

use kubefed_controllers::client::{Client, Error};
use kubefed_tests::control_plane::{ControlPlane, EXTENSION, a_control_plane};
use kubefed_tests::{Kubectl, eventually, eventually_within};
use serde_json::{Value, json};

const GROUP: &str = "/apis/scheduling.kubefed.io/v1alpha1";
const KEY: &str = "count/replicaschedulingpreferences.scheduling.kubefed.io";
/// The host's quota controller looks for new kinds each half minute.
const DISCOVERY: Duration = Duration::from_secs(120);

fn there(namespace: &str) -> String {
    format!("{GROUP}/namespaces/{namespace}/replicaschedulingpreferences")
}

fn preference(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "scheduling.kubefed.io/v1alpha1", "kind": "ReplicaSchedulingPreference",
        "metadata": {"name": name},
        "spec": {"targetKind": "FederatedDeployment", "totalReplicas": replicas},
    })
}

fn refused(outcome: Result<Value, Error>) -> String {
    outcome.expect_err("it is refused").to_string()
}

async fn namespace(admin: &Client, name: &str, labels: Value) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    admin.create("/api/v1/namespaces", &object).await.expect("created");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_policies_of_a_host_hold_for_our_kinds() {
    let Some(host) = a_control_plane().await else { return };
    let extension = host.extension().await;
    host.register(&extension).await;
    let admin = host.admin();
    let kubectl = host.kubectl("admin", &["system:masters"]);
    policies_refuse(&admin).await;
    policies_warn(&admin, &kubectl).await;
    policies_have_parameters(&host, &admin).await;
    quotas_limit(&admin).await;
}

async fn policy(admin: &Client, name: &str, spec: Value, binding: Value) {
    let registration = "/apis/admissionregistration.k8s.io/v1";
    let object = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let mut policy = json!({"matchConstraints": {"resourceRules": [{
        "apiGroups": ["scheduling.kubefed.io"], "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["replicaschedulingpreferences"],
    }]}});
    let mut bound = json!({"policyName": name, "validationActions": ["Deny"]});
    for (spec, more) in [(&mut policy, spec), (&mut bound, binding)] {
        let more = more.as_object().expect("fields").clone();
        spec.as_object_mut().expect("fields").extend(more);
    }
    let policies = format!("{registration}/validatingadmissionpolicies");
    let policy = object("ValidatingAdmissionPolicy", policy);
    admin.create(&policies, &policy).await.expect("created");
    let bindings = format!("{registration}/validatingadmissionpolicybindings");
    let bound = object("ValidatingAdmissionPolicyBinding", bound);
    admin.create(&bindings, &bound).await.expect("created");
}

fn in_tier(tier: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"tier": tier}}})
}

async fn policies_refuse(admin: &Client) {
    namespace(admin, "gold", json!({"tier": "gold"})).await;
    namespace(admin, "plain", json!({})).await;
    let spec = json!({
        "variables": [{"name": "most", "expression": "9"}],
        "validations": [
            {
                "expression": "object == null || object.spec.totalReplicas <= variables.most",
                "messageExpression": "'at most 9, not ' + string(object.spec.totalReplicas)",
            },
            {
                "expression": "request.operation != 'DELETE' || namespaceObject.metadata.name != 'gold' || oldObject.metadata.name != 'kept'",
                "message": "it is kept", "reason": "Forbidden",
            },
        ],
    });
    policy(admin, "few", spec, json!({"matchResources": in_tier("gold")})).await;
    let trial = format!("{}?dryRun=All", there("gold"));
    let why = eventually("the policy is in force", async || {
        admin.create(&trial, &preference("a", 10)).await.err()
    })
    .await;
    let wanted = "replicaschedulingpreferences.scheduling.kubefed.io \"a\" is forbidden: \
                  ValidatingAdmissionPolicy 'few' with binding 'few' denied request: at most 9, not 10";
    assert!(why.to_string().contains(wanted), "{why}");
    let why = refused(admin.create(&there("gold"), &preference("a", 10)).await);
    assert!(why.contains(wanted), "{why}");
    admin.create(&there("plain"), &preference("a", 10)).await.expect("it is bound in gold alone");

    admin.create(&there("gold"), &preference("a", 9)).await.expect("that is few enough");
    let of = format!("{}/a", there("gold"));
    let why = refused(admin.merge(&of, &json!({"spec": {"totalReplicas": 11}})).await);
    assert!(why.contains("at most 9, not 11"), "{why}");
    let mut whole = admin.get(&of).await.expect("it is there");
    whole["spec"]["totalReplicas"] = json!(12);
    let why = refused(admin.replace(&of, &whole).await);
    assert!(why.contains("at most 9, not 12"), "{why}");
    for name in ["a", "applied"] {
        let of = format!("{}/{name}", there("gold"));
        let why = refused(admin.apply(&of, &preference(name, 13), true).await);
        assert!(why.contains("at most 9, not 13"), "{why}");
    }
    admin.apply(&of, &preference("a", 8), true).await.expect("that is few enough");
    admin.delete(&of, &json!({})).await.expect("only one is kept");
    admin.create(&there("gold"), &preference("kept", 1)).await.expect("created");
    let why = refused(admin.delete(&format!("{}/kept", there("gold")), &json!({})).await);
    assert!(why.contains("denied request: it is kept"), "{why}");
}

async fn policies_warn(admin: &Client, kubectl: &Kubectl) {
    namespace(admin, "warned", json!({"tier": "warned"})).await;
    let spec = json!({
        "matchConditions": [{"name": "new", "expression": "request.operation == 'CREATE'"}],
        "validations": [{"expression": "has(object.metadata.labels)", "message": "labels are nice"}],
    });
    let binding = json!({"validationActions": ["Warn"], "matchResources": in_tier("warned")});
    policy(admin, "nice", spec, binding).await;
    let object = preference("a", 1).to_string();
    let said = eventually("the policy is in force", async || {
        let output = kubectl.run("-n warned create --dry-run=server -f -", &object).await;
        assert!(output.status.success(), "a warning refuses nothing");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.contains("Warning:").then_some(said)
    })
    .await;
    let wanted = "Validation failed for ValidatingAdmissionPolicy 'nice' with binding 'nice': labels are nice";
    assert!(said.contains(wanted), "{said}");
}

async fn policies_have_parameters(host: &ControlPlane, admin: &Client) {
    namespace(admin, "measured", json!({"tier": "measured"})).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limits"}, "data": {"most": "3"}});
    let maps = "/api/v1/namespaces/measured/configmaps";
    admin.create(maps, &map).await.expect("created");
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{
            "expression": "object.spec.totalReplicas <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most",
        }],
    });
    let params = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
    policy(
        admin,
        "measure",
        spec,
        json!({"matchResources": in_tier("measured"), "paramRef": params}),
    )
    .await;
    let trial = format!("{}?dryRun=All", there("measured"));
    let says = async |what: &str, replicas: i64, wanted: &str| {
        eventually(what, async || {
            let why = admin.create(&trial, &preference("a", replicas)).await.err()?.to_string();
            why.contains(wanted).then_some(())
        })
        .await;
    };
    says(
        "what may not be read is a failure",
        1,
        "denied request: failed to configure binding: configmaps \"limits\" is forbidden",
    )
    .await;
    let kubectl = host.kubectl("admin", &["system:masters"]);
    kubectl.ok("-n measured create role limits --verb=get,list --resource=configmaps", "").await;
    kubectl
        .ok(&format!("-n measured create rolebinding limits --role=limits --user={EXTENSION}"), "")
        .await;
    says("the parameter is read", 4, "denied request: at most 3").await;
    admin.create(&there("measured"), &preference("a", 3)).await.expect("that is few enough");
    admin.merge(&format!("{maps}/limits"), &json!({"data": {"most": "2"}})).await.expect("changed");
    says("the parameter is read anew", 3, "denied request: at most 2").await;
    admin.delete(&format!("{maps}/limits"), &json!({})).await.expect("deleted");
    says(
        "without it nothing is allowed",
        1,
        "no params found for policy binding with `Deny` parameterNotFoundAction",
    )
    .await;
}

/// A quota in a namespace of its own, once the host counts what it limits.
async fn quota(admin: &Client, namespace_name: &str, most: &str) -> String {
    namespace(admin, namespace_name, json!({})).await;
    let quotas = format!("/api/v1/namespaces/{namespace_name}/resourcequotas");
    let object = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {KEY: most}}});
    admin.create(&quotas, &object).await.expect("created");
    let of = format!("{quotas}/few");
    let mut touches = 0;
    eventually_within(DISCOVERY, "the host counts our kind", async || {
        let found = admin.get(&of).await.ok()?;
        let status = &found["status"];
        if status["used"][KEY].is_string() {
            return Some(());
        }
        // It counts when a quota changes: where it has taken up the last change and did not know the kind then, it
        // is given another.
        if status["hard"] == found["spec"]["hard"] {
            touches += 1;
            let touch = json!({"count/nothing.example.io": touches.to_string()});
            admin.merge(&of, &json!({"spec": {"hard": touch}})).await.ok()?;
        }
        None
    })
    .await;
    of
}

async fn quotas_limit(admin: &Client) {
    quota(admin, "pair", "2").await;
    let there_in = there("pair");
    for name in ["one", "two"] {
        eventually("there is room", async || {
            admin.create(&there_in, &preference(name, 1)).await.ok()
        })
        .await;
    }
    let wanted = format!(
        "replicaschedulingpreferences.scheduling.kubefed.io \"three\" is forbidden: \
         exceeded quota: few, requested: {KEY}=1, used: {KEY}=2, limited: {KEY}=2"
    );
    for path in [there_in.clone(), format!("{there_in}?dryRun=All")] {
        let why = refused(admin.create(&path, &preference("three", 1)).await);
        assert!(why.contains(&wanted), "{why}");
    }
    let applied = admin.apply(&format!("{there_in}/three"), &preference("three", 1), true).await;
    let why = refused(applied);
    assert!(why.contains(&wanted), "{why}");
    admin
        .merge(&format!("{there_in}/one"), &json!({"spec": {"totalReplicas": 2}}))
        .await
        .expect("it is there");
    admin.delete(&format!("{there_in}/one"), &json!({})).await.expect("deleted");
    eventually("the host counts less", async || {
        admin.create(&there_in, &preference("three", 1)).await.ok()
    })
    .await;

    let of = quota(admin, "crowd", "5").await;
    let there_in = there("crowd");
    let creates = (0..20).map(|n| {
        let (admin, there_in) = (admin.clone(), there_in.clone());
        tokio::spawn(async move { admin.create(&there_in, &preference(&format!("p{n}"), 1)).await })
    });
    let mut created = 0;
    for create in creates.collect::<Vec<_>>() {
        match create.await.expect("it ends") {
            Ok(_) => created += 1,
            Err(why) => assert!(why.to_string().contains("exceeded quota: few"), "{why}"),
        }
    }
    assert_eq!(created, 5);
    let found = admin.get(&there_in).await.expect("a list");
    assert_eq!(found["items"].as_array().expect("items").len(), 5);
    let used = admin.get(&of).await.expect("a quota")["status"]["used"][KEY].clone();
    assert_eq!(used, "5");
}
