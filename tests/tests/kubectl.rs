//! The federation endpoint as kubectl sees it.

use kubefed_tests::{a_federation, guide};

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
