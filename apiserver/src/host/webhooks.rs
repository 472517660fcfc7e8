//! The host's webhook configurations, followed.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Resource;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;

use crate::admission::webhooks::{Hook, Hooks, Webhooks, as_mutating};

/// Follows both kinds of configurations.
pub(super) async fn follow(host: &kube::Client, webhooks: &Webhooks) {
    let mutating = follow_kind(host, &webhooks.mutating, |it: MutatingWebhookConfiguration| {
        it.webhooks.unwrap_or_default()
    });
    let validating =
        follow_kind(host, &webhooks.validating, |it: ValidatingWebhookConfiguration| {
            it.webhooks.unwrap_or_default().into_iter().map(as_mutating).collect()
        });
    tokio::join!(mutating, validating);
}

async fn follow_kind<K>(
    host: &kube::Client,
    hooks: &Hooks,
    webhooks: impl Fn(K) -> Vec<MutatingWebhook>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::all(host.clone());
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    // They are called in the order of their configurations' names, as Kubernetes does.
    let (mut known, mut listed) = (BTreeMap::new(), BTreeMap::new());
    let compile = |configuration: K| {
        let name = configuration.meta().name.clone().unwrap_or_default();
        let compiled = webhooks(configuration).into_iter().map(|it| Hook::new(&name, it).into());
        let compiled: Vec<_> = compiled.collect();
        (name, compiled)
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(configuration)) => {
                listed.extend([compile(configuration)]);
                continue;
            }
            Ok(watcher::Event::InitDone) => known = std::mem::take(&mut listed),
            Ok(watcher::Event::Apply(configuration)) => known.extend([compile(configuration)]),
            Ok(watcher::Event::Delete(configuration)) => {
                known.remove(configuration.meta().name.as_deref().unwrap_or(""));
            }
            Err(error) => {
                let kind = K::plural(&());
                if hooks.is_known() {
                    tracing::debug!(%error, %kind, "not followed at the moment");
                } else {
                    tracing::warn!(
                        %error, %kind,
                        "the host's webhooks cannot be read, and no write is taken until they are; \
                         the server needs the rights to list and watch them"
                    );
                }
                continue;
            }
        }
        hooks.publish(known.values().flatten().cloned().collect());
    }
}
