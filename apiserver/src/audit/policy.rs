//! Which requests are recorded, and how much of each: the `Policy` of `audit.k8s.io/v1`. The first rule that fits a
//! request decides; a request that none fits is not recorded.

use kubefed_apimachinery::decode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::RequestInfo;
use crate::user::UserInfo;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(super) enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Default for Policy {
    /// Every request but probes, without bodies, when it is answered.
    fn default() -> Self {
        let probes = ["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"];
        let probes =
            Rule { non_resource_urls: probes.map(String::from).to_vec(), ..Rule::default() };
        Policy {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            _metadata: Value::Null,
            rules: vec![probes, Rule { level: Level::Metadata, ..Rule::default() }],
            omit_stages: vec![Stage::RequestReceived],
            omit_managed_fields: false,
        }
    }
}

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

impl Policy {
    /// Reads a policy, YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it: a policy with a slip would record too little or too much.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let decoded = decode::yaml(bytes).map_err(|error| error.to_string())?;
        if let Some(twice) = decoded.duplicates.first() {
            return Err(format!("{twice} is there twice"));
        }
        let policy: Policy =
            serde_json::from_value(decoded.value).map_err(|error| error.to_string())?;
        if policy.api_version != API_VERSION || policy.kind != KIND {
            return Err(format!("it must be a {KIND} of {API_VERSION}"));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules, so that nothing would be recorded".into());
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{at}]{why}"))?;
        }
        Ok(policy)
    }

    pub(super) fn apply(&self, user: &UserInfo, info: &RequestInfo) -> Applied {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, info)) else {
            return Applied::default();
        };
        let omit_stages = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        Applied {
            level: if is_secret(info) { rule.level.min(Level::Metadata) } else { rule.level },
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

/// Whether the bodies hold credentials. They are not recorded, whatever the policy says.
fn is_secret(info: &RequestInfo) -> bool {
    matches!(info.resource.as_str(), "secrets" | "federatedsecrets" | "tokenreviews")
        || info.subresource == "token"
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let of_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_objects && !self.non_resource_urls.is_empty() {
            return Err(": resources or namespaces, and nonResourceURLs, never fit together");
        }
        let is_path = |url: &String| {
            let body = url.strip_suffix('*').unwrap_or(url);
            (url == "*" || url.starts_with('/')) && !body.contains('*')
        };
        if !self.non_resource_urls.iter().all(is_path) {
            return Err(
                ".nonResourceURLs: each begins with a slash and has no star but at its end",
            );
        }
        Ok(())
    }

    fn fits(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        named(&self.users, &user.name)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|g| user.is_in(g)))
            && (named(&self.verbs, &info.verb) || named(&self.verbs, "*"))
            && if !self.resources.is_empty() || !self.namespaces.is_empty() {
                info.is_resource
                    && named(&self.namespaces, &info.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|r| r.fit(info)))
            } else if !self.non_resource_urls.is_empty() {
                !info.is_resource
                    && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                        Some(prefix) => info.path.starts_with(prefix),
                        None => *url == info.path,
                    })
            } else {
                true
            }
    }
}

impl Resources {
    fn fit(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&info.name) {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (*pattern == info.resource && info.subresource.is_empty()),
            Some(("*", subresource)) => {
                !info.subresource.is_empty() && info.subresource == subresource
            }
            Some((resource, "*")) => info.resource == resource,
            Some((resource, subresource)) => {
                info.resource == resource && info.subresource == subresource
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:apiserver]
- level: None
  userGroups: [system:nodes]
  verbs: [get]
- level: RequestResponse
  omitManagedFields: false
  resources:
  - group: ""
    resources: [configmaps, pods/log, "*/status", "services/*"]
  - group: apps
  - group: rbac.authorization.k8s.io
    resources: [roles]
    resourceNames: [one]
- level: Request
  namespaces: [a, ""]
  omitStages: [ResponseStarted]
- level: Metadata
  nonResourceURLs: [/metrics, "/openapi*"]
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        use Level::{Metadata, None, Request, RequestResponse};
        let policy = Policy::read(POLICY.as_bytes()).unwrap();
        for (user, method, path, wanted) in [
            ("system:apiserver", Method::PUT, "/api/v1/namespaces/a/configmaps/c", None),
            ("n", Method::GET, "/api/v1/namespaces/b/configmaps/c", None),
            ("n", Method::PUT, "/api/v1/namespaces/b/configmaps/c", RequestResponse),
            ("u", Method::GET, "/api/v1/namespaces/b/pods/p", None),
            ("u", Method::GET, "/api/v1/namespaces/b/pods/p/log", RequestResponse),
            ("u", Method::PUT, "/api/v1/namespaces/b/pods/p/status", RequestResponse),
            ("u", Method::GET, "/api/v1/namespaces/b/services/s", RequestResponse),
            ("u", Method::GET, "/api/v1/namespaces/b/services/s/proxy", RequestResponse),
            ("u", Method::GET, "/apis/apps/v1/deployments", RequestResponse),
            ("u", Method::GET, "/apis/batch/v1/jobs", Request),
            (
                "u",
                Method::GET,
                "/apis/rbac.authorization.k8s.io/v1/namespaces/b/roles/one",
                RequestResponse,
            ),
            ("u", Method::GET, "/apis/rbac.authorization.k8s.io/v1/namespaces/b/roles/two", None),
            ("u", Method::GET, "/api/v1/namespaces/a/pods/p", Request),
            // A secret stays one.
            ("u", Method::POST, "/api/v1/namespaces/a/secrets", Metadata),
            ("u", Method::POST, "/api/v1/namespaces/a/serviceaccounts/s/token", Metadata),
            ("u", Method::GET, "/metrics", Metadata),
            ("u", Method::GET, "/metrics/slis", None),
            ("u", Method::GET, "/openapi/v2", Metadata),
            ("u", Method::GET, "/apis", None),
        ] {
            let groups = if user == "n" { vec!["system:nodes".into()] } else { vec![] };
            let info = RequestInfo::new(&method, path, &Query::default());
            let applied = policy.apply(&UserInfo::authenticated(user, groups), &info);
            assert_eq!(applied.level, wanted, "{user} {method} {path}");
        }
        let of = |path| RequestInfo::new(&Method::GET, path, &Query::default());
        let user = UserInfo::authenticated("u", vec![]);
        let applied = policy.apply(&user, &of("/api/v1/namespaces/a/pods/p"));
        assert_eq!(applied.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(applied.omit_managed_fields);
        assert!(!policy.apply(&user, &of("/apis/apps/v1/deployments")).omit_managed_fields);
    }

    #[test]
    fn without_a_policy_all_but_probes_is_recorded_when_it_is_answered() {
        let policy = Policy::default();
        for (path, wanted) in [
            ("/livez", Level::None),
            ("/readyz/store", Level::None),
            ("/healthz-all", Level::Metadata),
            ("/api/v1/namespaces/a/configmaps/c", Level::Metadata),
        ] {
            let info = RequestInfo::new(&Method::GET, path, &Query::default());
            let applied = policy.apply(&UserInfo::anonymous(), &info);
            assert_eq!(applied.level, wanted, "{path}");
            assert_eq!(applied.omit_stages, [Stage::RequestReceived], "{path}");
        }
    }

    #[test]
    fn a_policy_with_a_slip_is_refused() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (text, named) in [
            (
                "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]".into(),
                "audit.k8s.io/v1",
            ),
            (format!("{head}rules: []"), "no rules"),
            (format!("{head}rules: [{{level: Everything}}]"), "Everything"),
            (format!("{head}rules: [{{users: [a]}}]"), "level"),
            (format!("{head}rules: [{{level: None, user: [a]}}]"), "user"),
            (format!("{head}rules: [{{level: None, level: Request}}]"), "level"),
            (
                format!("{head}rules: [{{level: None, namespaces: [a], nonResourceURLs: [/a]}}]"),
                "rules[0]",
            ),
            (format!("{head}rules: [{{level: None, nonResourceURLs: [/a*b]}}]"), "nonResourceURLs"),
            ("{".into(), ""),
        ] {
            let error = Policy::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
