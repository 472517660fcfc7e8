//! Certificates and authorities that change under an extension of a real Kubernetes, while requests go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kubefed_certs::{Authorities, Authority, ClientTls, KeyPairPem, client_config};
use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::raw::{Answer, HTTP1, HTTP2, Raw};
use kubefed_tests::{Cluster, eventually};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

const READABLE: &str = "/apis/core.kubefed.io/v1beta1/namespaces/default/kubefedclusters";
const TRUST: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const CLIENTS: &str = "client-ca-file";
const FRONT_PROXIES: &str = "requestheader-client-ca-file";
/// Between two requests of one caller.
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_certificates_and_authorities_change() {
    let Some(host) = a_control_plane().await else { return };
    let extension = host.extension_with(|c| c.serving.poll = Duration::from_millis(50)).await;
    let extension = Arc::new(extension);
    let_people_read(&host.admin()).await;
    host.register(&extension).await;
    let people = ["people"];
    let through = host.client("alice", &people);
    eventually("alice may look, through the host", async || through.get(READABLE).await.ok()).await;

    let mut load = Load::default();
    load.by("through the host", through);
    load.by("past the host", host.client_past(&extension, "alice", &people));
    let alice = host.authority.issue_client("alice", &people).expect("a certificate");
    load.anew("anew", &extension, alice, &[]);
    let proxy = host.front_proxy.issue_client("front-proxy-client", &[]).expect("a certificate");
    load.anew("anew, as the front proxy", &extension, proxy, &CLAIM);
    load.goes_on().await;

    // A certificate of the server, past a pair that does not match and a file that is none.
    std::fs::write(extension.dir.path().join("tls.crt"), "not a certificate").expect("a file");
    load.goes_on().await;
    let renewed = host.renew(&extension);
    let wanted = CertificateDer::from_pem_slice(renewed.cert_pem.as_bytes()).expect("PEM");
    eventually("the new certificate is shown", async || {
        let stream = extension.stream_of(None, HTTP1).await;
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
        (chain[0] == wanted).then_some(())
    })
    .await;
    load.goes_on().await;

    for (key, name) in [(FRONT_PROXIES, "front-proxy-client"), (CLIENTS, "bob")] {
        changes(&host, &extension, &mut load, key, name).await;
    }
    load.end().await;
}

const CLAIM: [(&str, &str); 2] = [("x-remote-user", "erin"), ("x-remote-group", "people")];

/// Lets the group `people` read.
async fn let_people_read(admin: &Client) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let path = format!("/apis/{GROUP}/v1/namespaces/default");
    let role = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": ["core.kubefed.io"], "resources": ["kubefedclusters"], "verbs": ["list"]}],
    });
    admin.create(&format!("{path}/roles"), &role).await.expect("created");
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": "people"}],
    });
    admin.create(&format!("{path}/rolebindings"), &binding).await.expect("created");
}

/// Another authority comes and takes over from a second one that goes. (The host puts back its own if that is taken
/// away.)
async fn changes(
    host: &ControlPlane,
    extension: &Arc<Cluster>,
    load: &mut Load,
    key: &str,
    name: &str,
) {
    let authority = |name: &str| Authority::new(&format!("{key}-{name}")).expect("an authority");
    let (old, new) = (authority("old"), authority("new"));
    let shown = |by: &Authority| by.issue_client(name, &["people"]).expect("a certificate");
    let claim: Claim = if key == FRONT_PROXIES { &CLAIM } else { &[] };
    let pem = |authority: &Authority| authority.cert_pem().expect("PEM");
    let admin = host.admin();
    let before = admin.get(TRUST).await.expect("the trust")["data"][key].clone();
    let before = before.as_str().expect("PEM").to_owned();
    let told = async |believed: &[&Authority], others: &[&Authority]| {
        let names = named(extension).await;
        believed.iter().all(|one| names.contains(&name_of(one)))
            && others.iter().all(|one| !names.contains(&name_of(one)))
    };
    let own = [&host.authority, &host.front_proxy];
    assert!(told(&own, &[&old, &new]).await, "the host's own authorities are named, and no other");

    let mut by_old = Caller::new(extension, shown(&old), claim).await;
    let mut by_new = Caller::new(extension, shown(&new), claim).await;
    for caller in [&mut by_old, &mut by_new] {
        assert_eq!(caller.ask().await.code, 401);
    }
    let old_pem = pem(&old);
    trust(&admin, key, &format!("{before}\n{old_pem}")).await;
    by_old.until(200).await;
    let mut going = Load::default();
    going.anew("by the old one", extension, shown(&old), claim);
    going.goes_on().await;

    // An accident: nobody who was believed is refused for it.
    trust(&admin, key, "not a certificate").await;
    going.goes_on().await;
    load.goes_on().await;

    // Both, while clients change over.
    trust(&admin, key, &format!("{before}\n{old_pem}\n{}", pem(&new))).await;
    by_new.until(200).await;
    eventually("both are named", async || {
        told(&[own[0], own[1], &old, &new], &[]).await.then_some(())
    })
    .await;
    load.anew("by the new one", extension, shown(&new), claim);
    load.goes_on().await;
    going.end().await;

    // The new one alone: connections that the old one's clients still have are worth nothing.
    trust(&admin, key, &format!("{before}\n{}", pem(&new))).await;
    by_old.until(401).await;
    eventually("the old one is not named", async || told(&[&new], &[&old]).await.then_some(()))
        .await;
    assert_eq!(by_new.ask().await.code, 200);
    load.goes_on().await;
}

async fn trust(admin: &Client, key: &str, pem: &str) {
    admin.merge(TRUST, &json!({"data": {key: pem}})).await.expect("changed");
}

/// One who keeps a connection for as long as nobody ends it: who is refused begins another.
struct Caller<'a> {
    extension: &'a Cluster,
    shown: KeyPairPem,
    claim: Claim,
    raw: Raw,
}

impl<'a> Caller<'a> {
    async fn new(extension: &'a Cluster, shown: KeyPairPem, claim: Claim) -> Self {
        let raw = Raw::over(extension.stream_of(Some(&shown), HTTP2).await).await;
        Caller { extension, shown, claim, raw }
    }

    async fn ask(&mut self) -> Answer {
        let answer = self.raw.send("GET", READABLE, self.claim, "").await;
        if answer.code == 401 {
            self.raw = Raw::over(self.extension.stream_of(Some(&self.shown), HTTP2).await).await;
        }
        answer
    }

    async fn until(&mut self, code: u16) {
        eventually(&format!("the answer is {code}"), async || {
            let answer = self.ask().await;
            assert!(matches!(answer.code, 200 | 401), "{}: {}", answer.code, answer.json());
            (answer.code == code).then_some(())
        })
        .await;
    }
}

type Claim = &'static [(&'static str, &'static str)];

/// Callers that ask on and on, and give up when they are refused once.
#[derive(Default)]
struct Load {
    token: CancellationToken,
    failure: Arc<OnceLock<String>>,
    callers: Vec<(JoinHandle<()>, Arc<AtomicUsize>)>,
}

impl Load {
    /// Asks over one connection.
    fn by(&mut self, what: &'static str, client: Client) {
        self.call(what, move || {
            let client = client.clone();
            async move { client.get(READABLE).await.map(drop).map_err(|error| error.to_string()) }
        });
    }

    /// Asks over a new connection each time.
    fn anew(&mut self, what: &'static str, server: &Arc<Cluster>, shown: KeyPairPem, claim: Claim) {
        let server = Arc::clone(server);
        self.call(what, move || {
            let (server, shown) = (Arc::clone(&server), shown.clone());
            async move {
                let mut raw = Raw::over(server.stream_of(Some(&shown), HTTP2).await).await;
                let answer = raw.send("GET", READABLE, claim, "").await;
                if answer.code == 200 { Ok(()) } else { Err(answer.json().to_string()) }
            }
        });
    }

    fn call<Asked>(&mut self, what: &'static str, ask: impl Fn() -> Asked + Send + 'static)
    where
        Asked: Future<Output = Result<(), String>> + Send,
    {
        let (token, failure, answered) =
            (self.token.clone(), Arc::clone(&self.failure), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&answered);
        let caller = tokio::spawn(async move {
            while !token.is_cancelled() {
                if let Err(why) = ask().await {
                    let _not_the_first = failure.set(format!("{what}: {why}"));
                    return;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        });
        self.callers.push((caller, answered));
    }

    /// Waits until every caller has been answered a few times more.
    async fn goes_on(&self) {
        let answered = || self.callers.iter().map(|(_, n)| n.load(Ordering::Relaxed));
        let before: Vec<usize> = answered().collect();
        eventually("every caller is answered", async || {
            self.check();
            answered().zip(&before).all(|(now, before)| now >= before + 5).then_some(())
        })
        .await;
    }

    fn check(&self) {
        assert_eq!(self.failure.get(), None);
        assert!(self.callers.iter().all(|(caller, _)| !caller.is_finished()), "a caller gave up");
    }

    async fn end(self) {
        self.check();
        self.token.cancel();
        for (caller, _) in self.callers {
            caller.await.expect("it was answered to its end");
        }
        assert_eq!(self.failure.get(), None);
    }
}

fn name_of(authority: &Authority) -> Vec<u8> {
    let pem = authority.cert_pem().expect("PEM");
    let authorities = Authorities::from_pem(pem.as_bytes()).expect("an authority");
    authorities.names().remove(0)
}

/// The authorities that a server asks for certificates of.
async fn named(server: &Cluster) -> Vec<Vec<u8>> {
    let ca_pem = std::fs::read(server.ca_file()).expect("the CA");
    let tls = ClientTls { ca_pem, ..ClientTls::default() };
    let mut config = client_config(&tls).expect("certificates");
    let asked = Arc::new(Names::default());
    config.client_auth_cert_resolver = Arc::clone(&asked) as _;
    let stream = TcpStream::connect(server.server.address).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
    asked.0.get().expect("the server asks").clone()
}

/// Shows nothing, and keeps what was asked for.
#[derive(Debug, Default)]
struct Names(OnceLock<Vec<Vec<u8>>>);

impl ResolvesClientCert for Names {
    fn resolve(&self, names: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.get_or_init(|| names.iter().map(|name| name.to_vec()).collect());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}
