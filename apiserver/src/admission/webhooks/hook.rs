//! One webhook of a configuration, made ready to be asked.

use std::time::Duration;

use http::Uri;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, NamedRuleWithOperations, RuleWithOperations, ValidatingWebhook,
    WebhookClientConfig,
};
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::labels::Selector;

use super::conditions::Conditions;
use crate::admission::matching::{self, Asked};

/// As Kubernetes, where a webhook says nothing else, and at most.
const TIMEOUT: i32 = 10;
const MAX_TIMEOUT: i32 = 30;

/// A webhook.
pub(crate) struct Hook {
    pub(super) configuration: String,
    pub(super) name: String,
    rules: Vec<NamedRuleWithOperations>,
    equivalent: bool,
    /// What is wrong with a selector is told when it would have been asked.
    pub(super) namespaces: Result<Selector, String>,
    pub(super) objects: Result<Selector, String>,
    pub(super) conditions: Conditions,
    /// Whether a write goes on without an answer.
    pub(super) may_fail: bool,
    pub(super) timeout: Duration,
    pub(super) side_effects: String,
    /// Whether it wants to see the object again after later webhooks have changed it.
    pub(super) again: bool,
    /// The versions of AdmissionReview that it reads, the preferred one first.
    pub(super) versions: Vec<String>,
    pub(super) target: Result<Target, String>,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uri: Uri,
    /// Whether the host of `uri` is the name of a Service of the host cluster.
    pub(super) is_service: bool,
    /// Whom to trust; those that the system trusts if empty.
    pub(super) ca: Vec<u8>,
}

impl Hook {
    pub(crate) fn new(configuration: &str, webhook: MutatingWebhook) -> Self {
        let timeout = webhook.timeout_seconds.unwrap_or(TIMEOUT).clamp(1, MAX_TIMEOUT);
        Hook {
            configuration: configuration.to_owned(),
            name: webhook.name,
            rules: webhook.rules.unwrap_or_default().into_iter().map(named).collect(),
            equivalent: webhook.match_policy.as_deref() != Some("Exact"),
            namespaces: matching::selector(webhook.namespace_selector.as_ref()),
            objects: matching::selector(webhook.object_selector.as_ref()),
            conditions: Conditions::new(webhook.match_conditions.unwrap_or_default()),
            may_fail: webhook.failure_policy.as_deref() == Some("Ignore"),
            timeout: Duration::from_secs(u64::from(timeout.unsigned_abs())),
            side_effects: webhook.side_effects,
            again: webhook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            versions: webhook.admission_review_versions,
            target: target(webhook.client_config),
        }
    }

    /// The version of the kind in which it is to be asked, as far as its rules can tell.
    pub(super) fn version<'a>(&self, asked: &Asked<'a>) -> Option<&'a GroupVersion> {
        matching::version(&self.rules, self.equivalent, asked)
    }

    /// Whether a write that is only tried out leaves no trace with it.
    pub(super) fn takes_dry_runs(&self) -> bool {
        matches!(self.side_effects.as_str(), "None" | "NoneOnDryRun")
    }
}

/// A validating webhook in the form of a mutating one.
pub(crate) fn as_mutating(webhook: ValidatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        admission_review_versions: webhook.admission_review_versions,
        client_config: webhook.client_config,
        failure_policy: webhook.failure_policy,
        match_conditions: webhook.match_conditions,
        match_policy: webhook.match_policy,
        name: webhook.name,
        namespace_selector: webhook.namespace_selector,
        object_selector: webhook.object_selector,
        reinvocation_policy: None,
        rules: webhook.rules,
        side_effects: webhook.side_effects,
        timeout_seconds: webhook.timeout_seconds,
    }
}

fn named(rule: RuleWithOperations) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: rule.api_groups,
        api_versions: rule.api_versions,
        operations: rule.operations,
        resource_names: None,
        resources: rule.resources,
        scope: rule.scope,
    }
}

fn target(config: WebhookClientConfig) -> Result<Target, String> {
    let (is_service, base, path) = match (config.service, config.url) {
        (Some(service), _) => {
            let port = service.port.unwrap_or(443);
            let base = format!("https://{}.{}.svc:{port}", service.name, service.namespace);
            (true, base, service.path.unwrap_or_default())
        }
        (None, Some(url)) => (false, url, String::new()),
        (None, None) => return Err("its clientConfig has neither a service nor a url".into()),
    };
    let uri: Uri = format!("{base}{path}").parse().map_err(|error| format!("its URL: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("its URL {base} does not begin with https://"));
    }
    let ca = config.ca_bundle.map(|bundle| bundle.0).unwrap_or_default();
    Ok(Target { uri, is_service, ca })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hook(changes: &Value) -> Hook {
        let mut webhook = json!({
            "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"name": "hooks", "namespace": "there"}},
        });
        kubefed_apimachinery::patch::merge::apply(&mut webhook, changes);
        Hook::new("a", serde_json::from_value(webhook).expect("a webhook"))
    }

    #[test]
    fn a_webhook_is_at_a_url_or_behind_a_service() {
        let without = json!({"clientConfig": {"service": null}});
        for (config, wanted) in [
            (json!({}), Ok(("https://hooks.there.svc:443/", true))),
            (
                json!({"clientConfig": {"service": {"path": "/a/b", "port": 9443}}}),
                Ok(("https://hooks.there.svc:9443/a/b", true)),
            ),
            (
                json!({"clientConfig": {"service": null, "url": "https://127.0.0.1:1/x"}}),
                Ok(("https://127.0.0.1:1/x", false)),
            ),
            (
                json!({"clientConfig": {"service": null, "url": "http://127.0.0.1:1/x"}}),
                Err("https://"),
            ),
            (json!({"clientConfig": {"service": null, "url": "https://a b"}}), Err("its URL")),
            (without, Err("neither")),
        ] {
            match (hook(&config).target, wanted) {
                (Ok(target), Ok((uri, is_service))) => {
                    assert_eq!(
                        (target.uri.to_string().as_str(), target.is_service),
                        (uri, is_service)
                    );
                }
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
                (found, wanted) => panic!("{config}: {found:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_webhook_has_its_time_within_bounds() {
        for (given, wanted) in [(json!(null), 10), (json!(3), 3), (json!(0), 1), (json!(100), 30)] {
            let hook = hook(&json!({"timeoutSeconds": given}));
            assert_eq!(hook.timeout, Duration::from_secs(wanted), "{given}");
        }
    }

    #[test]
    fn only_a_webhook_without_side_effects_takes_dry_runs() {
        for (effects, wanted) in
            [("None", true), ("NoneOnDryRun", true), ("Some", false), ("Unknown", false)]
        {
            assert_eq!(
                hook(&json!({"sideEffects": effects})).takes_dry_runs(),
                wanted,
                "{effects}"
            );
        }
    }
}
