//! The federation endpoint as kubectl sees it.

use kubefed_tests::up::Up;
use kubefed_tests::{Kubectl, a_federation, federated_namespace, guide, kubernetes};

const NAMESPACE: &str =
    r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"test-namespace"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_of_the_guide_is_applied_unchanged_and_stays_so() {
    let federation = a_federation().await;
    let kubectl = federation.kubectl();
    kubectl.ok("create -f -", NAMESPACE).await;
    for section in ["2.2", "4.1", "4.2", "5.1", "6.1", "6.2"] {
        let manifest = guide(section);
        kubectl.ok("apply --validate=strict -f -", &manifest).await;
        let again = kubectl.ok("apply --validate=strict -f -", &manifest).await;
        assert!(again.trim_end().ends_with("unchanged"), "{section}: {again}");
        kubectl.ok("diff -f -", &manifest).await;
        let yaml = kubectl.ok("get -o yaml -f -", &manifest).await;
        assert!(yaml.contains("managedFields") || yaml.contains("resourceVersion"), "{yaml}");
    }
    let refused = kubectl.fails("apply --validate=strict -f -", &guide("3.1")).await;
    assert!(refused.contains("spec.caBundle"), "{refused}");
}

/// What a user does in a day, with one kubectl.
async fn a_day_of_work(kubectl: &Kubectl) {
    let resources = kubectl.ok("api-resources", "").await;
    for wanted in ["federateddeployments", "kfc", "ftc", "rsp", "replicaschedulingstrategies"] {
        assert!(resources.contains(wanted), "{wanted} in {resources}");
    }
    let explained = kubectl.ok("explain federateddeployment.spec.template.spec", "").await;
    for wanted in ["replicas", "strategy", "selector"] {
        assert!(explained.contains(wanted), "{wanted} in {explained}");
    }
    kubectl.ok("explain kubefedcluster.spec.caBundle", "").await;

    // Of what is in a list, kubectl knows the fields by OpenAPI v2 as protobuf only.
    kubectl.ok("apply -f -", LIST).await;
    let again = kubectl.ok("apply --validate=strict -f -", LIST).await;
    assert_eq!(again.matches("unchanged").count(), 2, "{again}");
    let unknown = LIST.replace("containers:", "container:");
    let refused = kubectl.fails("apply --validate=strict -f -", &unknown).await;
    assert!(refused.contains("container"), "{refused}");
    kubectl.ok("delete -f -", LIST).await;
    let explained = kubectl
        .ok("explain --output=plaintext-openapiv2 federateddeployment.spec.template.spec", "")
        .await;
    for wanted in ["replicas\t<integer>", "selector", "Number of desired pods"] {
        assert!(explained.contains(wanted), "{wanted} in {explained}");
    }

    let manifest = guide("4.2");
    kubectl.ok("apply -f -", &manifest).await;
    let unknown = manifest.replace("image: nginx", "imag: nginx");
    let refused = kubectl.fails("apply --validate=strict -f -", &unknown).await;
    assert!(refused.contains("imag"), "{refused}");
    kubectl.ok("apply --server-side --force-conflicts -f -", &manifest).await;
    let table = kubectl.ok("-n test-namespace get fdeploy -o wide", "").await;
    assert!(table.contains("test-deployment") && table.contains("REPLICAS"), "{table}");
    let described =
        kubectl.ok("-n test-namespace describe federateddeployment test-deployment", "").await;
    assert!(described.contains("Cluster Name:  cluster1"), "{described}");

    kubectl
        .ok("-n test-namespace scale federateddeployment test-deployment --replicas=5", "")
        .await;
    let replicas = "-n test-namespace get federateddeployment test-deployment -o jsonpath={.spec.template.spec.replicas}";
    assert_eq!(kubectl.ok(replicas, "").await, "5");
    let watch = "-n test-namespace get federateddeployments -w --output-watch-events -L tier";
    let label = async {
        // Once more until the watch has begun.
        loop {
            let line =
                "-n test-namespace label --overwrite federateddeployment test-deployment tier=";
            kubectl.ok(&format!("{line}db"), "").await;
            kubectl.ok(&format!("{line}web"), "").await;
        }
    };
    tokio::select! {
        () = kubectl.until(watch, "MODIFIED") => {}
        () = label => {}
    }
    kubectl
        .ok("-n test-namespace label --overwrite federateddeployment test-deployment tier=web", "")
        .await;
    kubectl
        .ok("-n test-namespace annotate federateddeployment test-deployment edited=before", "")
        .await;
    kubectl.ok("-n test-namespace edit federateddeployment test-deployment", "").await;
    let edited = "-n test-namespace get federateddeployment -l tier=web -o jsonpath={.items[0].metadata.annotations.edited}";
    assert_eq!(kubectl.ok(edited, "").await, "after");
    let patch = r#"-n test-namespace patch federateddeployment test-deployment --type=merge -p {"spec":{"template":{"spec":{"replicas":4}}}}"#;
    kubectl.ok(patch, "").await;
    assert_eq!(kubectl.ok(replicas, "").await, "4");
    let wait = "-n test-namespace wait federateddeployment test-deployment --for=condition=Propagation --timeout=30s";
    kubectl.ok(wait, "").await;

    kubectl.ok("apply --server-side --force-conflicts -f -", &manifest).await;
    kubectl.ok("diff --server-side --force-conflicts -f -", &manifest).await;
    let dry = kubectl
        .ok("create --dry-run=server -f -", &manifest.replace("test-deployment", "other"))
        .await;
    assert!(dry.contains("server dry run"), "{dry}");
    kubectl.ok("auth can-i delete federateddeployments", "").await;
    kubectl
        .ok("-n test-namespace delete federateddeployment test-deployment --timeout=30s", "")
        .await;
    let gone = kubectl.fails("-n test-namespace get federateddeployment test-deployment", "").await;
    assert!(gone.contains("NotFound"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_kubectl_do_a_days_work() {
    let mut programs = vec!["kubectl".into()];
    for module in ["kubectl/v1.29", "kubectl/v1.33"] {
        programs.extend(kubernetes::binary(module).await);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let federation = Up::start(dir.path());
    let first = federation.kubectl_at("kubectl".into());
    first.ok("create -f -", NAMESPACE).await;
    first.ok("apply -f -", &federated_namespace("test-namespace").to_string()).await;
    for program in programs {
        a_day_of_work(&federation.kubectl_at(program)).await;
    }
}

const LIST: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: of-a-list, namespace: test-namespace}
  data: {key: value}
- apiVersion: types.kubefed.io/v1beta1
  kind: FederatedDeployment
  metadata: {name: of-a-list, namespace: test-namespace}
  spec:
    template:
      spec:
        replicas: 1
        selector: {matchLabels: {app: list}}
        template:
          metadata: {labels: {app: list}}
          spec:
            containers: [{name: main, image: nginx}]
    placement: {clusters: []}
"#;
