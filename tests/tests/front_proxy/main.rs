//! Requests to an extension of a real Kubernetes that must not get what they ask for: past the host, and through it.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kubefed_apiserver::audit;
use kubefed_certs::KeyPairPem;
use kubefed_tests::control_plane::{ControlPlane, EXTENSION, a_control_plane};
use kubefed_tests::proxy::Proxy;
use kubefed_tests::raw::{self, Answer, HTTP1, HTTP2, Raw};
use kubefed_tests::{Cluster, NAMESPACE, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

mod claims;
mod credentials;
mod outage;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// What nobody but an administrator may list.
const CLUSTERS: &str = "/apis/core.kubefed.io/v1beta1/kubefedclusters";
/// What a reader may list.
const READABLE: &str = "/apis/core.kubefed.io/v1beta1/namespaces/a/kubefedclusters";

const AUTHENTICATED: &str = "system:authenticated";

type Lines<'a> = &'a [(&'a str, &'a str)];

/// A host, an extension of it, and what the extension recorded of its requests.
struct Scene {
    host: ControlPlane,
    /// From the extension to its host.
    road: Proxy,
    extension: Cluster,
    dir: TempDir,
    /// What may be in no answer and on no line of a log.
    secrets: RefCell<Vec<String>>,
}

impl Scene {
    /// A scene with a namespace `a`, and in it an account `bot` and a role `reader`.
    async fn new() -> Option<Self> {
        let host = a_control_plane().await?;
        let dir = tempfile::tempdir().expect("a directory");
        let options = audit::Options {
            path: dir.path().join("audit.log"),
            max_size: u64::MAX,
            max_backups: 0,
            policy: audit::Policy::default(),
        };
        let road = host.road().await;
        let extension = host.extension_by(&road.url(), |c| c.audit = Some(options)).await;
        let scene = Scene { host, road, extension, dir, secrets: RefCell::default() };
        scene.create("/api/v1/namespaces", named("v1", "Namespace", "a")).await;
        let bot = named("v1", "ServiceAccount", "bot");
        scene.create("/api/v1/namespaces/a/serviceaccounts", bot).await;
        let mut role = named("rbac.authorization.k8s.io/v1", "Role", "reader");
        role["rules"] = json!([
            {"apiGroups": ["core.kubefed.io"], "resources": ["kubefedclusters"], "verbs": ["get", "list"]},
        ]);
        scene.create(&format!("{RBAC}/namespaces/a/roles"), role).await;
        Some(scene)
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        self.host.admin().create(path, &object).await.expect("created")
    }

    /// Lets a user of the host read in namespace `a`, and waits until the host knows.
    async fn let_read(&self, user: &str) {
        let mut binding = named("rbac.authorization.k8s.io/v1", "RoleBinding", user);
        binding["roleRef"] =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
        binding["subjects"] = json!([subject(user)]);
        self.create(&format!("{RBAC}/namespaces/a/rolebindings"), binding).await;
        self.until_host_says(user, true).await;
    }

    /// Waits until the host itself says whether a user may read in namespace `a`.
    async fn until_host_says(&self, user: &str, allowed: bool) {
        let mut review = named("authorization.k8s.io/v1", "SubjectAccessReview", "");
        review["spec"] = json!({"user": user, "resourceAttributes": {
            "verb": "list", "group": "core.kubefed.io", "resource": "kubefedclusters", "namespace": "a",
        }});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let admin = self.host.admin();
        eventually("the host knows the rights", async || {
            let answer = admin.create(path, &review).await.ok()?;
            (answer["status"]["allowed"] == allowed).then_some(())
        })
        .await;
    }

    /// A token of the account `bot` by the host's own hand.
    async fn token(&self, spec: Value) -> String {
        let mut request = named("authentication.k8s.io/v1", "TokenRequest", "");
        request["spec"] = spec;
        let path = "/api/v1/namespaces/a/serviceaccounts/bot/token";
        let token = self.create(path, request).await["status"]["token"].clone();
        self.secret(token.as_str().expect("a token"))
    }

    /// Remembers that this may not be seen anywhere.
    fn secret(&self, secret: &str) -> String {
        self.secrets.borrow_mut().push(secret.to_owned());
        secret.to_owned()
    }

    /// A connection to the extension, past the host.
    async fn past(&self, shown: Option<&KeyPairPem>, protocol: &str) -> Raw {
        Raw::over(self.extension.stream_of(shown, protocol).await).await
    }

    /// A certificate that the host vouches for.
    fn of_host(&self, user: &str, groups: &[&str]) -> KeyPairPem {
        self.host.authority.issue_client(user, groups).expect("a certificate")
    }

    /// A certificate of the host's front proxy.
    fn of_front_proxy(&self) -> KeyPairPem {
        self.host.front_proxy.issue_client("front-proxy-client", &[]).expect("a certificate")
    }

    /// What holds of every answer: it leads nowhere else and gives nothing away.
    fn check(&self, name: &str, answer: &Answer) {
        assert!(!(300..400).contains(&answer.code), "{name}: {}", answer.code);
        assert!(!answer.headers.contains_key("location"), "{name}: {:?}", answer.headers);
        let told = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        self.check_text(name, &told);
    }

    fn check_text(&self, name: &str, text: &str) {
        for secret in self.secrets.borrow().iter() {
            assert!(!text.contains(secret.as_str()), "{name} gives away {secret}");
        }
    }

    /// The line that a request with this audit id left.
    async fn recorded(&self, id: &str) -> Value {
        let path = self.dir.path().join("audit.log");
        eventually(&format!("{id} is recorded"), async || {
            let text = std::fs::read_to_string(&path).ok()?;
            let mut lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            lines.find(|line| line["auditID"] == id)
        })
        .await
    }

    /// Sends a request for what only administrators see: 401 if `wanted` is null, else it is seen as that user.
    async fn expect(&self, raw: &mut Raw, name: &str, headers: Lines<'_>, wanted: &Value) {
        let mut headers = headers.to_vec();
        headers.push(("audit-id", name));
        let answer = raw.send("GET", CLUSTERS, &headers, "").await;
        self.check(name, &answer);
        let is_admin = wanted["groups"]
            .as_array()
            .is_some_and(|groups| groups.contains(&json!("system:masters")));
        let code = match (wanted.is_null(), is_admin) {
            (true, _) => 401,
            (false, true) => 200,
            (false, false) => 403,
        };
        assert_eq!(answer.code, code, "{name}: {}", answer.json());
        let wanted = if wanted.is_null() { json!({}) } else { wanted.clone() };
        assert_eq!(self.recorded(name).await["user"], wanted, "{name}");
        if code == 403 {
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            let user = format!("User {}", wanted["username"]);
            assert!(message.contains(&user), "{name}: {message}");
        }
    }
}

fn named(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

fn subject(user: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user})
}

fn anonymous() -> Value {
    json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_without_proof() {
    let Some(scene) = Scene::new().await else { return };
    claims::by_certificate(&scene).await;
    claims::by_header(&scene).await;
    claims::on_the_wire(&scene).await;
    claims::over_one_connection(&scene).await;
    claims::through_the_host(&scene).await;
    credentials::tokens(&scene).await;
    credentials::impersonation(&scene).await;
    credentials::a_certificate_that_ends(&scene).await;
    nothing_leads_elsewhere(&scene).await;
    no_log_holds_a_secret(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_allowed_that_the_host_cannot_say() {
    let Some(mut scene) = Scene::new().await else { return };
    outage::decisions_change(&scene).await;
    outage::the_host_is_away_for_a_moment(&scene).await;
    outage::the_host_hangs(&scene).await;
    Box::pin(outage::the_host_falls(&mut scene)).await;
}

/// Whatever path is asked for: there is no redirect, not even to a path without a slash at its end.
async fn nothing_leads_elsewhere(scene: &Scene) {
    let admin = scene.of_host("admin", &["system:masters"]);
    for shown in [Some(&admin), None] {
        let mut raw = scene.past(shown, HTTP1).await;
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            for path in [
                "/",
                "//",
                "/apis/",
                "//apis",
                "/apis/core.kubefed.io/",
                "/apis//core.kubefed.io/v1beta1",
                "/apis/core.kubefed.io/v1beta1/../v1beta1",
                "/%2e%2e/apis",
                "/healthz/",
                "/openapi/v2/",
                "/openapi/v3",
                "//elsewhere.example.com/%2f..",
                "/\\elsewhere.example.com",
                "/apis?continue=https://elsewhere.example.com",
                "/ui",
                "/proxy/https://elsewhere.example.com",
            ] {
                let headers = [("x-forwarded-host", "elsewhere.example.com")];
                let answer = raw.send(method, path, &headers, "").await;
                scene.check(&format!("{method} {path}"), &answer);
            }
        }
    }
}

/// The program itself, told to log all that it can, and the record of requests.
async fn no_log_holds_a_secret(scene: &Scene) {
    let file = |name: &str| scene.dir.path().join(name);
    let program = Program::start(scene, &file("stderr"));
    let address = eventually("the program listens", async || {
        std::fs::read_to_string(file("endpoint")).ok()?.trim().parse().ok()
    })
    .await;
    let ca = std::fs::read(scene.extension.ca_file()).expect("the CA");
    let good = scene.token(json!({})).await;
    let basic = scene.secret("YWRtaW46c2VzYW1l");
    let cookie = scene.secret("open-sesame");
    let garbage = scene.secret("sesame-as-a-token");
    for (shown, protocol) in [(None, HTTP1), (Some(scene.of_front_proxy()), HTTP2)] {
        for credential in
            [format!("Bearer {good}"), format!("Bearer {garbage}"), format!("Basic {basic}")]
        {
            let stream = raw::stream(address, ca.clone(), shown.as_ref(), protocol).await;
            let mut raw = Raw::over(stream).await;
            let headers = [("authorization", credential.as_str()), ("cookie", cookie.as_str())];
            let answer = raw.send("GET", CLUSTERS, &headers, "").await;
            assert!(matches!(answer.code, 401 | 403), "{}", answer.code);
            scene.check("a credential", &answer);
        }
    }
    drop(program);
    let log = std::fs::read_to_string(file("stderr")).expect("a log");
    assert!(log.contains(CLUSTERS), "the requests are logged: {log}");
    scene.check_text("the log", &log);
    for key in ["BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY"] {
        assert!(!log.contains(key), "the log holds a key");
    }
    let record = std::fs::read_to_string(file("audit.log")).expect("a record");
    assert!(record.contains(CLUSTERS), "the requests are recorded");
    scene.check_text("the record", &record);
}

/// `kubefed-apiserver`, gone with the value.
struct Program(Child);

impl Program {
    fn start(scene: &Scene, log: &Path) -> Self {
        let tests = std::env::current_exe().expect("the test has a path");
        let dir = tests.parent().and_then(Path::parent).expect("target/PROFILE/deps");
        let path = |name: &str| scene.extension.dir.path().join(name).display().to_string();
        let kubeconfig = scene.host.kubeconfig("program", EXTENSION, &[]);
        let child = Command::new(dir.join("kubefed-apiserver"))
            .args(["--bind-address=127.0.0.1", "--secure-port=0", "-v=9", "--exit-with-parent"])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg("--storage-backend=embedded")
            .arg(format!("--data-dir={}", scene.dir.path().join("data").display()))
            .arg(format!("--endpoint-file={}", scene.dir.path().join("endpoint").display()))
            .arg(format!("--tls-cert-file={}", path("tls.crt")))
            .arg(format!("--tls-private-key-file={}", path("tls.key")))
            .arg(format!("--kubefed-namespace={NAMESPACE}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a file"))
            .spawn()
            .expect("the program is built");
        Program(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}
