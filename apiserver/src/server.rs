//! A server, put together: store, kinds, filters, handlers and the loops of a standalone control plane.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use http::Response;
use jiff::Timestamp;
use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_certs::{ServerFiles, ServerTls};
use kubefed_storage::Store;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::tokens::Tokens;
use crate::authn::{Authenticator, Standalone};
use crate::authz::rbac::Rbac;
use crate::authz::{Authorizer, bootstrap, rbac};
use crate::body::Body;
use crate::customresources::{self, CustomResources};
use crate::federatedtypes::FederatedTypes;
use crate::filters::{self, Filters};
use crate::host::Host;
use crate::loopback::Loopback;
use crate::metrics::Metrics;
use crate::registry::{Part, Registry, Route, Write};
use crate::request::RequestInfo;
use crate::{audit, garbage, handlers, health, listener, namespaces, render, virtuals};

/// Who the server is in `managedFields`.
pub(crate) const MANAGER: &str = "kubefed-apiserver";
/// The namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// What a server is made of.
pub struct Config {
    pub store: Arc<dyn Store>,
    /// The kinds that are served from the start.
    pub kinds: Vec<Definition>,
    /// The namespace of the control plane, in a server that federates.
    pub federation: Option<String>,
    /// The cluster that the server extends: it says who may do what, and which namespaces there are.
    pub host: Option<Arc<Host>>,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    pub tls: ServerFiles,
    pub serving: Serving,
    /// PEM of the key that service-account tokens are signed with, and of its public half.
    pub service_account_key: Option<(Vec<u8>, Vec<u8>)>,
    /// Where requests are recorded, if anywhere.
    pub audit: Option<audit::Options>,
    /// `gitVersion` that `/version` tells.
    pub version: String,
}

/// How requests are taken. The default is that of Kubernetes.
#[derive(Clone, Debug)]
pub struct Serving {
    /// How many requests that read, and that write, are answered at a time; 0: any number.
    pub max_reading: usize,
    pub max_writing: usize,
    /// Paths that need no rights; a star at the end stands for whatever begins so.
    pub open_paths: Vec<String>,
    /// How long a server that is to end goes on, while `/readyz` fails already.
    pub shutdown_delay: Duration,
    /// How often the files of certificates are looked at.
    pub poll: Duration,
}

impl Default for Serving {
    fn default() -> Self {
        let probes = ["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"];
        Serving {
            max_reading: 400,
            max_writing: 200,
            open_paths: probes.map(String::from).to_vec(),
            shutdown_delay: Duration::ZERO,
            poll: kubefed_certs::POLL,
        }
    }
}

/// A server that runs.
pub struct Server {
    pub registry: Arc<Registry>,
    pub store: Arc<dyn Store>,
    pub authorizer: Arc<dyn Authorizer>,
    pub rbac: Arc<Rbac>,
    /// The cluster that this server extends, if it does not stand alone.
    pub host: Option<Arc<Host>>,
    /// The namespace of the control plane, in a server that federates.
    pub(crate) federation: Option<String>,
    pub tokens: Option<Arc<Tokens>>,
    pub metrics: Arc<Metrics>,
    pub version: Value,
    pub clock: fn() -> Timestamp,
    pub random: fn() -> [u8; 16],
    /// Cancelled when the server is to end: requests are still answered.
    pub ending: CancellationToken,
    /// Cancelled when the last request was answered.
    pub token: CancellationToken,
    /// Set once the cache of every kind was filled.
    pub(crate) synced: OnceLock<()>,
    pub tracker: TaskTracker,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server. It runs until `token` is cancelled; [`drained`](Self::drained) waits for its end.
    ///
    /// # Errors
    /// If it cannot listen, its certificates can't be read, or the store does not answer.
    pub async fn start(config: Config, token: CancellationToken) -> anyhow::Result<Arc<Server>> {
        let tracker = TaskTracker::new();
        let listener = TcpListener::bind(config.address).await.with_context(|| {
            format!("cannot listen on {} (--bind-address, --secure-port)", config.address)
        })?;
        let address = listener.local_addr()?;
        let tls = ServerTls::follow(config.tls, config.serving.poll, token.clone()).await?;
        // Caches, loops and the store outlast the listener: the last requests still need them.
        let inner = CancellationToken::new();
        let registry = Registry::new(
            Arc::clone(&config.store),
            "/registry",
            if config.host.is_some() { &[] } else { virtuals::REVIEWS },
            inner.clone(),
            tracker.clone(),
        );
        registry.install(config.kinds);
        let tokens = match &config.service_account_key {
            Some((private, public)) => {
                Some(Arc::new(Tokens::new(private, public, &registry).map_err(anyhow::Error::msg)?))
            }
            None => None,
        };
        let rbac = Arc::new(Rbac::default());
        let authorizer: Arc<dyn Authorizer> = match &config.host {
            Some(host) => Arc::new(host.rights()),
            None => Arc::clone(&rbac) as _,
        };
        let authenticator: Arc<dyn Authenticator> = match &config.host {
            Some(host) => Arc::new(host.identities(Timestamp::now)?),
            None => Arc::new(Standalone { tokens: tokens.clone(), clock: Timestamp::now }),
        };
        let server = Arc::new(Server {
            registry,
            store: config.store,
            authorizer,
            rbac,
            host: config.host,
            federation: config.federation,
            tokens,
            metrics: Arc::default(),
            version: version(&config.version),
            clock: Timestamp::now,
            random: || uuid::Uuid::new_v4().into_bytes(),
            ending: token.clone(),
            token: inner,
            synced: OnceLock::new(),
            tracker,
            address,
        });
        if server.host.is_none() {
            server.bootstrap(server.federation.as_deref()).await?;
        }
        server.spawn_loops(&tls).await;
        let mut filters = Filters::new(
            authenticator,
            Arc::clone(&server.authorizer),
            Arc::clone(&server.metrics),
            &config.serving,
        );
        let registry = Arc::clone(&server.registry);
        filters.serves = Box::new(move |info| serves(&registry, info));
        filters.ending = token.clone();
        if let Some(options) = config.audit {
            let path = options.path.display().to_string();
            let log = audit::Log::start(options, &server)
                .with_context(|| format!("cannot write to {path} (--audit-log-path)"))?;
            filters.audit = Some(log);
        }
        let filters = Arc::new(filters);
        let app =
            filters::chain(Router::new().fallback(route).with_state(Arc::clone(&server)), &filters);
        let (draining, delay) = (filters.draining.clone(), config.serving.shutdown_delay);
        server.tracker.spawn(async move {
            token.cancelled().await;
            tokio::time::sleep(delay).await;
            draining.cancel();
        });
        let (ending, draining) = (Arc::clone(&server), filters.draining.clone());
        server.tracker.spawn(async move {
            listener::serve(listener, tls, app, draining).await;
            ending.token.cancel();
        });
        Ok(server)
    }

    /// Waits until everything has ended.
    pub async fn drained(&self) {
        self.token.cancelled().await;
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn spawn_loops(self: &Arc<Self>, tls: &Arc<ServerTls>) {
        match &self.host {
            // The host's own controllers empty namespaces and follow owners, here as well.
            Some(host) => host.follow(&self.registry, tls, &self.token, &self.tracker),
            None => self.spawn_loops_of_a_cluster(),
        }
        // The kinds that objects define are served before the first request is.
        if let Some(namespace) = &self.federation {
            let types = FederatedTypes::new(self, namespace.clone());
            self.at_last(|| types.reconcile()).await;
            self.tracker.spawn(types.run());
        }
        if self.registry.resource(customresources::GROUP, customresources::PLURAL).is_some() {
            let types = CustomResources::new(self);
            self.at_last(|| types.reconcile()).await;
            self.tracker.spawn(types.run());
        }
    }

    /// Repeats what needs the store until it is done or the server is to end: a server that began to serve while etcd
    /// elects a leader would say of kinds that they do not exist.
    async fn at_last<F: Future<Output = Result<(), Status>>>(&self, step: impl Fn() -> F) {
        while let Err(status) = step().await
            && !self.ending.is_cancelled()
        {
            tracing::warn!(%status, "not serving yet: what is to be served cannot be read");
        }
    }

    fn spawn_loops_of_a_cluster(self: &Arc<Self>) {
        let (rbac, registry, ending) =
            (Arc::clone(&self.rbac), Arc::clone(&self.registry), self.token.clone());
        self.tracker.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = rbac.follow(&registry) => {}
            }
        });
        self.tracker.spawn(namespaces::run(Arc::clone(self)));
        self.tracker.spawn(garbage::run(Arc::clone(self)));
    }

    /// Creates what every control plane has and this one lacks.
    async fn bootstrap(self: &Arc<Self>, federation: Option<&str>) -> anyhow::Result<()> {
        let named =
            |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespaces = NAMESPACES.iter().copied().chain(federation);
        let namespaces = namespaces.map(|name| ("", "namespaces", named(name)));
        let roles = bootstrap::objects().into_iter().map(|object| {
            let is_role = object["kind"] == "ClusterRole";
            let plural = if is_role { "clusterroles" } else { "clusterrolebindings" };
            (rbac::GROUP, plural, object)
        });
        let loopback = Loopback::new(self, MANAGER);
        for (group, plural, object) in namespaces.chain(roles) {
            let name = meta::name(&object).to_owned();
            let created = loopback.create_if_missing(group, plural, object).await;
            created.with_context(|| format!("cannot create {plural} {name}"))?;
        }
        Ok(())
    }

    /// A write of the server's own, recorded under `manager`.
    pub(crate) fn write<'a>(&self, manager: &'a str, route: &'a Route, part: Part) -> Write<'a> {
        Write {
            route,
            part,
            manager,
            now: (self.clock)(),
            dry_run: false,
            random: self.random,
            warn: &|_| {},
            admission: None,
        }
    }
}

/// Whether the path names something that is served, so that it may be told apart in metrics.
fn serves(registry: &Registry, info: &RequestInfo) -> bool {
    let catalog = registry.catalog();
    matches!(info.subresource.as_str(), "" | "status" | "scale" | "finalize" | "token")
        && (catalog.route(&info.group, &info.version, &info.resource).is_some()
            || catalog.review(&info.group, &info.version, &info.resource).is_some())
}

fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or(""),
        "minor": numbers.next().unwrap_or(""),
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Probes and metrics, then the API.
async fn route(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    if let Some(info) = request.extensions().get::<RequestInfo>().filter(|info| !info.is_resource) {
        if let Some(response) = health::answer(&server, &info.path, request.uri().query()).await {
            return response;
        }
        if info.path == "/metrics" {
            const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            return render::bytes_response(
                server.metrics.render().into(),
                TYPE,
                http::StatusCode::OK,
            );
        }
    }
    handlers::serve(State(server), request).await
}
