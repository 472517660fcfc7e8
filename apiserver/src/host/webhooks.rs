//! The host's webhook configurations, followed.

use std::fmt::Debug;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Resource;
use serde::de::DeserializeOwned;

use super::{changes, reflect};
use crate::admission::webhooks::{Hook, Hooks, Webhooks, as_mutating};

/// Follows both kinds of configurations.
pub(super) async fn follow(host: &kube::Client, webhooks: &Webhooks) {
    let mutating = follow_kind(host, &webhooks.mutating, |it: &MutatingWebhookConfiguration| {
        it.webhooks.clone().unwrap_or_default()
    });
    let validating =
        follow_kind(host, &webhooks.validating, |it: &ValidatingWebhookConfiguration| {
            it.webhooks.iter().flatten().cloned().map(as_mutating).collect()
        });
    tokio::join!(mutating, validating);
}

async fn follow_kind<K>(
    host: &kube::Client,
    hooks: &Hooks,
    webhooks: impl Fn(&K) -> Vec<MutatingWebhook>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (configurations, mut events) = reflect::<K>(host);
    let mut known = false;
    while let Some(event) = events.next().await {
        if !changes(event, &mut known, "no write is taken") {
            continue;
        }
        let mut there = configurations.state();
        // They are called in the order of their configurations' names, as Kubernetes does.
        there.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        let compiled = there.iter().flat_map(|configuration| {
            let name = configuration.meta().name.as_deref().unwrap_or("");
            webhooks(configuration).into_iter().map(move |it| Hook::new(name, it))
        });
        hooks.publish(compiled.collect());
    }
}
