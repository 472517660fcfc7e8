//! The manifests: what they say, and that a real Kubernetes takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use kubefed_api::federatedtypeconfig;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_tests::control_plane::a_control_plane;
use kubefed_tests::manifests::{OVERLAYS, kustomize, overlay};
use kubefed_tests::{NAMESPACE, binary, eventually, kubernetes};
use serde_json::{Value, json};

fn items<'a>(value: &'a Value, what: &str) -> &'a [Value] {
    value.as_array().unwrap_or_else(|| panic!("{what} is a list, not {value}"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// The pods that the objects of an overlay make: name of the object and spec of its pods.
fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let of = |object: &Value, path: &str| object.pointer(path).is_some();
    let places = ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec"];
    let found = objects.iter().filter_map(|object| {
        let place = places.into_iter().find(|place| of(object, place))?;
        Some((name(object), object.pointer(place)?))
    });
    found.collect()
}

#[test]
fn apiservices_are_those_of_our_groups_and_verify_who_answers() {
    let ours = kubefed_api::group_versions();
    for name_of_overlay in OVERLAYS {
        let objects = overlay(name_of_overlay);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let services: Vec<&Value> = of_kind(&objects, "APIService").collect();
        let led = services.iter().map(|s| GroupVersion {
            group: text(&s["spec"]["group"]),
            version: text(&s["spec"]["version"]),
        });
        assert_eq!(led.collect::<BTreeSet<_>>(), ours);
        assert_eq!(services.len(), ours.len());
        for service in &services {
            let spec = &service["spec"];
            assert_eq!(
                name(service),
                format!("{}.{}", text(&spec["version"]), text(&spec["group"]))
            );
            assert!(!text(&spec["caBundle"]).is_empty());
            assert_eq!(spec["insecureSkipTLSVerify"], Value::Null);
            assert_eq!(
                spec["service"],
                json!({"name": "kubefed-apiserver", "namespace": NAMESPACE, "port": 443})
            );
        }
        let role = of_kind(&objects, "ClusterRole").find(|role| name(role) == "kubefed-apiserver");
        let rules = items(&role.expect("its role")["rules"], "rules");
        let told = rules.iter().find(|rule| rule["resources"] == json!(["apiservices"]));
        let told: BTreeSet<&str> =
            texts(&told.expect("a rule")["resourceNames"]).into_iter().collect();
        assert_eq!(told, services.iter().map(|service| name(service)).collect());
    }
}

#[test]
fn no_rule_has_a_star_and_secrets_are_read_in_one_namespace_only() {
    for name_of_overlay in OVERLAYS {
        let objects = overlay(name_of_overlay);
        let mut rules = 0;
        for role in
            objects.iter().filter(|o| matches!(o["kind"].as_str(), Some("Role" | "ClusterRole")))
        {
            for rule in role["rules"].as_array().into_iter().flatten() {
                rules += 1;
                for part in ["apiGroups", "resources", "verbs", "nonResourceURLs"] {
                    assert!(texts(&rule[part]).iter().all(|word| !word.contains('*')), "{role}");
                }
                if role["kind"] == "ClusterRole" {
                    assert!(!texts(&rule["resources"]).contains(&"secrets"), "{role}");
                }
            }
        }
        assert!(rules > 5, "the roles were found");
    }
}

#[test]
fn controllers_may_write_every_kind_that_is_federated_by_default() {
    let objects = overlay("production");
    let role =
        of_kind(&objects, "ClusterRole").find(|r| name(r) == "kubefed-controller-manager:types");
    let rules = items(&role.expect("the role of types")["rules"], "rules");
    let defaults = federatedtypeconfig::defaults();
    let plurals = defaults.iter().map(|config| {
        config["spec"]["federatedType"]["pluralName"].as_str().expect("a plural").to_owned()
    });
    let plurals: BTreeSet<String> = plurals.collect();
    let granted = |rule: &Value| texts(&rule["resources"]).into_iter().map(String::from).collect();
    assert_eq!(plurals, granted(&rules[0]));
    let of_status: BTreeSet<String> =
        plurals.iter().map(|plural| format!("{plural}/status")).collect();
    assert_eq!(of_status, granted(&rules[1]));
}

#[test]
fn every_container_is_confined_bounded_and_probed() {
    for name_of_overlay in OVERLAYS {
        let objects = overlay(name_of_overlay);
        let pods = pods(&objects);
        assert!(pods.len() >= 2);
        for (owner, pod) in pods {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{owner}");
            for container in items(&pod["containers"], "containers") {
                let confined = &container["securityContext"];
                assert_eq!(confined["readOnlyRootFilesystem"], true, "{owner}");
                assert_eq!(confined["allowPrivilegeEscalation"], false, "{owner}");
                assert_eq!(confined["capabilities"]["drop"], json!(["ALL"]), "{owner}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{owner}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{owner}");
                if !owner.starts_with("kubefed-backup") {
                    assert!(container["livenessProbe"]["httpGet"].is_object(), "{owner}");
                    assert!(container["readinessProbe"]["httpGet"].is_object(), "{owner}");
                }
            }
        }
    }
}

#[test]
fn whatever_is_installed_carries_our_label() {
    for name_of_overlay in OVERLAYS {
        for object in overlay(name_of_overlay) {
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/part-of"], "kubefed",
                "{object}"
            );
        }
    }
}

#[test]
fn alerts_ask_for_metrics_that_our_servers_have() {
    // What was never counted is not told, so that the names are taken from where they are registered.
    let registered = [
        include_str!("../../apiserver/src/metrics.rs"),
        include_str!("../../controllers/src/metrics.rs"),
    ];
    let series: BTreeSet<&str> =
        registered.iter().flat_map(|source| source.split('"').skip(1).step_by(2)).collect();
    let objects = overlay("monitored");
    let rules = of_kind(&objects, "PrometheusRule").next().expect("rules");
    let mut asked = 0;
    for rule in items(&rules["spec"]["groups"][0]["rules"], "rules") {
        let expression = rule["expr"].as_str().expect("an expression");
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.contains('_')) {
            asked += 1;
            let family = metric.strip_suffix("_total").unwrap_or(metric);
            assert!(
                series.contains(metric) || series.contains(family),
                "{metric} is told by nobody"
            );
        }
    }
    assert!(asked >= 5, "the metrics were found");
}

/// The flags that a help text names.
fn flags(help: &str) -> BTreeSet<String> {
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[tokio::test]
async fn servers_know_the_flags_that_they_are_given() {
    let kubernetes = kubernetes::binary("kubernetes").await;
    let program = |command: &str| -> Option<(PathBuf, Vec<&str>)> {
        match command {
            "/kubefed-apiserver" | "/kubefed-controller-manager" => {
                Some((binary(&command[1..]), vec!["--help"]))
            }
            "etcd" => kubernetes.clone().map(|program| (program, vec!["etcd", "--help"])),
            "etcdctl" => None,
            other => panic!("{other} is no program of ours"),
        }
    };
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name_of_overlay in OVERLAYS {
        for (owner, pod) in pods(&overlay(name_of_overlay)) {
            let container = &items(&pod["containers"], "containers")[0];
            let command = container["command"][0].as_str().expect("a command");
            let Some((program, arguments)) = program(command) else { continue };
            let known = known.entry(command.to_owned()).or_insert_with(|| {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::piped());
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.spawn().expect("it starts");
                // Some end when this end of the pipe is closed, before they have said it all.
                let _open = child.stdin.take();
                let help = child.wait_with_output().expect("it ends");
                flags(&String::from_utf8_lossy(&[help.stdout, help.stderr].concat()))
            });
            let given = texts(&container["args"]);
            assert!(!given.is_empty(), "{owner}");
            for argument in given {
                let flag = argument.split('=').next().expect("a flag");
                assert!(known.contains(flag), "{command} knows no {flag}");
            }
        }
    }
    assert!(known.len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubernetes_takes_everything_and_admits_the_pods() {
    let Some(host) = a_control_plane().await else { return };
    let kubectl = host.kubectl("admin", &["system:masters"]);
    let apply = async |text: &str, flags: &str| {
        let command = format!("apply --server-side --validate=strict {flags} -f -");
        let output = kubectl.run(&command, text).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        // Pod security warns of each workload whose pods it would refuse.
        assert_eq!(said, "");
    };
    apply(include_str!("../../manifests/base/namespace.yaml"), "").await;
    apply(&kustomize("overlays/single-node"), "--dry-run=server").await;
    apply(&kustomize("overlays/production"), "").await;
    let admin = host.admin();
    let made = BTreeMap::from([
        ("kubefed-apiserver", 2),
        ("kubefed-controller-manager", 2),
        ("kubefed-etcd", 3),
    ]);
    eventually("the pods are there", async || {
        let list = admin.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods")).await.ok()?;
        let mut count = BTreeMap::new();
        for pod in items(&list["items"], "items") {
            *count
                .entry(pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str()?)
                .or_insert(0) += 1;
        }
        (count == made).then_some(())
    })
    .await;
    // What the controllers may do everywhere is gathered from the roles that say so.
    eventually("the role is gathered", async || {
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/kubefed-controller-manager";
        let role = admin.get(path).await.ok()?;
        role["rules"].to_string().contains("federateddeployments/status").then_some(())
    })
    .await;
}
