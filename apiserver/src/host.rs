//! The cluster that this server is an extension of: whom it trusts, what it allows, which namespaces it has, and what
//! it defines in our groups.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kubefed_apimachinery::status::Status;
use kubefed_certs::ServerTls;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::authn::delegated::{Delegated as Identities, TokenReviews};
use crate::authn::front_proxy::Trust;
use crate::authz::delegated::Delegated as Rights;
use crate::registry::Registry;

mod announcements;
mod definitions;
mod namespaces;
mod params;
mod policies;
mod quotas;
pub(crate) mod reviews;
mod webhooks;

pub(crate) use definitions::Definitions;
pub(crate) use namespaces::{Namespaces, Phase};
pub(crate) use params::Params;
pub(crate) use quotas::Quotas;

/// Where a cluster tells its extensions whom to trust.
const TRUST: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// How often the files of flags are looked at.
const POLL: Duration = Duration::from_secs(10);

/// How the host is reached, and what flags say of trust in place of its ConfigMap.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub authentication_kubeconfig: Option<PathBuf>,
    pub authorization_kubeconfig: Option<PathBuf>,
    /// The ConfigMap is not asked.
    pub skip_lookup: bool,
    /// Keys of the ConfigMap with their values.
    pub trust: BTreeMap<String, String>,
    /// Keys of the ConfigMap with the files that hold their values.
    pub trust_files: BTreeMap<String, PathBuf>,
}

impl Options {
    /// Whether there is a host.
    pub fn is_given(&self) -> bool {
        self.kubeconfig.is_some()
            || self.authentication_kubeconfig.is_some()
            || self.authorization_kubeconfig.is_some()
    }

    /// What the flags say of trust now.
    fn flags(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut said = self.trust.clone();
        for (key, file) in &self.trust_files {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {} (--{key})", file.display()))?;
            said.insert(key.clone(), text);
        }
        Ok(said)
    }
}

/// A host that is reached.
pub struct Host {
    options: Options,
    core: kube::Client,
    authentication: kube::Client,
    authorization: kube::Client,
    trust: Arc<ArcSwap<Trust>>,
    namespaces: Arc<Namespaces>,
    admission: Chain,
    definitions: Definitions,
}

impl Host {
    /// Reaches the host, and asks it whom to trust.
    ///
    /// # Errors
    /// If a kubeconfig can't be used, or the host does not say whom to trust.
    pub async fn connect(options: Options) -> anyhow::Result<Arc<Self>> {
        let fallback = [
            &options.kubeconfig,
            &options.authentication_kubeconfig,
            &options.authorization_kubeconfig,
        ];
        let any = fallback.into_iter().flatten().next().context("a --kubeconfig must be given")?;
        let core = client(options.kubeconfig.as_ref().unwrap_or(any)).await?;
        let authentication =
            client(options.authentication_kubeconfig.as_ref().unwrap_or(any)).await?;
        let authorization =
            client(options.authorization_kubeconfig.as_ref().unwrap_or(any)).await?;
        let namespaces = Arc::new(Namespaces::new(core.clone()));
        let host = Host {
            authentication,
            authorization,
            trust: Arc::default(),
            admission: Chain::new(core.clone(), Arc::clone(&namespaces)),
            definitions: Definitions::new(core.clone()),
            namespaces,
            core,
            options,
        };
        let mut known = None;
        let told = match host.options.skip_lookup {
            true => BTreeMap::new(),
            false => {
                let map = host.trust_map().get(TRUST.1).await;
                let map = map.with_context(|| {
                    format!("cannot read whom the host trusts, ConfigMap {}/{}", TRUST.0, TRUST.1)
                })?;
                map.data.unwrap_or_default()
            }
        };
        host.take_up(&told, &mut known)?;
        Ok(Arc::new(host))
    }

    /// Follows the host's trust, which `tls` tells clients of, its namespaces, its definitions and who has a say in
    /// writes, and tells it what `registry` serves, until `token` is cancelled.
    pub(crate) fn follow(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        tls: &Arc<ServerTls>,
        token: &CancellationToken,
        tracker: &TaskTracker,
    ) {
        let spawn = |task: BoxFuture<'static, ()>| {
            tracker.spawn(token.clone().run_until_cancelled_owned(task));
        };
        spawn(announcements::follow(self.core.clone(), Arc::clone(registry)).boxed());
        let (host, tls) = (Arc::clone(self), Arc::clone(tls));
        tls.name_authorities(host.trust.load().names());
        spawn(async move { host.follow_trust(&tls).await }.boxed());
        let loops: [fn(Arc<Host>) -> BoxFuture<'static, ()>; 5] = [
            |host| async move { host.namespaces.follow().await }.boxed(),
            |host| async move { host.definitions.follow().await }.boxed(),
            |host| async move { host.admission.quotas.follow().await }.boxed(),
            |host| {
                async move { webhooks::follow(&host.core, &host.admission.webhooks).await }.boxed()
            },
            |host| {
                async move { policies::follow(&host.core, &host.admission.policies).await }.boxed()
            },
        ];
        for follow in loops {
            spawn(follow(Arc::clone(self)));
        }
    }

    pub(crate) fn identities(&self, clock: fn() -> Timestamp) -> anyhow::Result<Identities> {
        let tokens = TokenReviews::new(self.authentication.clone())?;
        Ok(Identities { trust: Arc::clone(&self.trust), tokens, clock })
    }

    pub(crate) fn rights(&self) -> Rights {
        Rights::new(self.authorization.clone())
    }

    /// How a namespace is.
    pub(crate) async fn namespace(&self, name: &str) -> Result<Phase, Status> {
        self.namespaces.phase(name).await
    }

    /// Who in the host has a say in writes.
    pub(crate) fn admission(&self) -> &Chain {
        &self.admission
    }

    /// What the host defines in our groups.
    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    fn trust_map(&self) -> Api<ConfigMap> {
        Api::namespaced(self.authentication.clone(), TRUST.0)
    }

    async fn follow_trust(&self, tls: &ServerTls) {
        let mut maps = watcher::watch_object(self.trust_map(), TRUST.1).default_backoff().boxed();
        let (mut told, mut known) = (None, None);
        let mut ticks = tokio::time::interval(POLL);
        loop {
            tokio::select! {
                map = maps.next(), if !self.options.skip_lookup => match map {
                    Some(Ok(Some(map))) => told = map.data,
                    // Trust is not taken away by an accident: a host without the ConfigMap is broken, not changed.
                    Some(Ok(None)) => tracing::warn!("the host does not say whom to trust any more"),
                    Some(Err(error)) => tracing::debug!(%error, "the host's trust is not followed at the moment"),
                    None => return,
                },
                _ = ticks.tick() => {}
            }
            if told.is_none() && !self.options.skip_lookup {
                continue;
            }
            match self.take_up(told.as_ref().unwrap_or(&BTreeMap::new()), &mut known) {
                Ok(()) => tls.name_authorities(self.trust.load().names()),
                Err(error) => tracing::error!("{error:#}; what was trusted before stays so"),
            }
        }
    }

    /// Trusts whom the host and the flags say, if that is not what is `known`.
    fn take_up(
        &self,
        told: &BTreeMap<String, String>,
        known: &mut Option<BTreeMap<String, String>>,
    ) -> anyhow::Result<()> {
        let mut said = told.clone();
        said.extend(self.options.flags()?);
        if known.as_ref() != Some(&said) {
            let trust = Trust::parse(&said).map_err(anyhow::Error::msg);
            self.trust.store(Arc::new(trust.context("cannot tell whom to trust")?));
            *known = Some(said);
        }
        Ok(())
    }
}

/// All objects of a kind in the host, and the events that keep them so.
fn reflect<K>(host: &kube::Client) -> (Store<K>, BoxStream<'static, watcher::Result<Event<K>>>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::all(host.clone());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    (store, reflector(writer, events).boxed())
}

/// Whether an event makes something other than before, once all is `known`, of which the event may be the first word.
fn changes<K: Resource<DynamicType = ()>>(
    event: watcher::Result<Event<K>>,
    known: &mut bool,
    waits: &str,
) -> bool {
    match event {
        Ok(Event::Init | Event::InitApply(_)) => false,
        Ok(Event::InitDone) => {
            *known = true;
            true
        }
        Ok(Event::Apply(_) | Event::Delete(_)) => *known,
        Err(error) => {
            not_followed::<K>(&error, *known, waits);
            false
        }
    }
}

/// Tells that a kind is not followed. What is `known` already is only a little old; until then `waits` is what waits.
fn not_followed<K: Resource<DynamicType = ()>>(error: &watcher::Error, known: bool, waits: &str) {
    let kind = K::plural(&());
    if known {
        tracing::debug!(%error, %kind, "not followed at the moment");
    } else {
        tracing::warn!(
            %error, %kind,
            "the host's objects of this kind cannot be read, and {waits} until they are; the server needs the rights to \
             list and watch them"
        );
    }
}

async fn client(file: &Path) -> anyhow::Result<kube::Client> {
    let wrong = || format!("cannot use the kubeconfig {}", file.display());
    let kubeconfig = Kubeconfig::read_from(file).with_context(wrong)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.with_context(wrong)?).with_context(wrong)
}
