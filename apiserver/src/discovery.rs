//! What this server serves, in the words of discovery: the legacy documents and `apidiscovery.k8s.io/v2`.
//!
//! Made once per set of kinds. A failing or slow answer here harms a whole host cluster (namespace deletion stops when
//! any group cannot be discovered), so every document is ready bytes and needs neither store nor cache.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::status::Status;
use serde_json::{Value, json};

use crate::body::Body;
use crate::registry::{Catalog, Route};
use crate::render;
use crate::virtuals::{self, Virtual};

const AGGREGATED_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The verbs of every stored kind, sorted.
const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// How much of a hash tells one set of kinds from another.
const DIGEST: usize = 32;

/// The ready documents of one catalog.
pub struct Documents {
    /// By path without the leading slash: `api`, `apis`, `apis/apps`, `apis/apps/v1`, `api/v1`.
    legacy: BTreeMap<String, Bytes>,
    aggregated_core: Tagged,
    aggregated_groups: Tagged,
}

struct Tagged {
    body: Bytes,
    etag: HeaderValue,
}

/// Everything that one version of a group serves.
struct Served<'a> {
    routes: Vec<&'a Route>,
    virtuals: Vec<&'static Virtual>,
}

impl Documents {
    pub(crate) fn new(catalog: &Catalog) -> Self {
        let mut groups: BTreeMap<&str, BTreeMap<Reverse<Priority>, (GroupVersion, Served<'_>)>> =
            BTreeMap::new();
        let entry = |group_version: &GroupVersion| {
            let group_version = group_version.clone();
            (Reverse(priority(&group_version.version)), group_version)
        };
        for (group_version, routes) in catalog.group_versions() {
            let (key, owned) = entry(group_version);
            groups.entry(&group_version.group).or_default().insert(
                key,
                (owned, Served { routes: routes.values().collect(), virtuals: Vec::new() }),
            );
        }
        for kind in catalog.virtuals() {
            let (key, owned) =
                entry(&GroupVersion { group: kind.group.into(), version: kind.version.into() });
            groups
                .entry(kind.group)
                .or_default()
                .entry(key)
                .or_insert_with(|| (owned, Served { routes: Vec::new(), virtuals: Vec::new() }))
                .1
                .virtuals
                .push(kind);
        }

        let mut legacy = BTreeMap::new();
        let (mut core, mut named, mut group_list) = (Vec::new(), Vec::new(), Vec::new());
        for (group, versions) in groups {
            let versions: Vec<(GroupVersion, Served<'_>)> = versions.into_values().collect();
            for (group_version, served) in &versions {
                let path = path_of(group_version);
                legacy.insert(path, document(&resource_list(group_version, served)));
            }
            let aggregated = aggregated_group(group, &versions);
            if group.is_empty() {
                core.push(aggregated);
                let names: Vec<&str> = versions.iter().map(|(gv, _)| gv.version.as_str()).collect();
                let api = json!({
                    "kind": "APIVersions",
                    "versions": names,
                    "serverAddressByClientCIDRs": [],
                });
                legacy.insert("api".into(), document(&api));
            } else {
                named.push(aggregated);
                let mut group_document = api_group(group, &versions);
                group_list.push(group_document.clone());
                group_document["kind"] = json!("APIGroup");
                group_document["apiVersion"] = json!("v1");
                legacy.insert(format!("apis/{group}"), document(&group_document));
            }
        }
        legacy.insert(
            "apis".into(),
            document(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": group_list})),
        );
        Documents { legacy, aggregated_core: tagged(core), aggregated_groups: tagged(named) }
    }

    /// A digest of what is served of a group and version.
    pub fn digest(&self, group_version: &GroupVersion) -> String {
        let document = self.legacy.get(&path_of(group_version));
        let mut digest = document.map_or_else(String::new, |body| sha512_hex(body));
        digest.truncate(DIGEST);
        digest
    }

    /// Answers a GET of a discovery path (`/api`, `/apis`, `/apis/G`, `/apis/G/V`), or `None` if it is no such path.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let path = path.trim_matches('/');
        if let ("api" | "apis", true) = (path, asks_for_aggregated(headers)) {
            let document =
                if path == "api" { &self.aggregated_core } else { &self.aggregated_groups };
            return Some(document.answer(headers));
        }
        let body = self.legacy.get(path)?;
        Some(render::bytes_response(body.clone(), "application/json", StatusCode::OK))
    }
}

impl Tagged {
    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let mut response = render::tagged(self.body.clone(), AGGREGATED_TYPE, &self.etag, headers);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }
}

/// Whether some clause of `Accept` is the aggregated form. The parameters come in any order.
fn asks_for_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.split(',').any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        parts.next() == Some("application/json") && {
            let parameters: Vec<&str> = parts.collect();
            ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
                .iter()
                .all(|p| parameters.contains(p))
        }
    })
}

/// 404 for a path below `/api` and `/apis` that serves nothing.
pub(crate) fn unknown() -> Status {
    Status::unknown_resource()
}

fn path_of(group_version: &GroupVersion) -> String {
    if group_version.group.is_empty() {
        format!("api/{}", group_version.version)
    } else {
        format!("apis/{}/{}", group_version.group, group_version.version)
    }
}

fn document(value: &Value) -> Bytes {
    let mut body = value.to_string();
    body.push('\n');
    body.into()
}

fn tagged(groups: Vec<Value>) -> Tagged {
    let body = document(&json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups,
    }));
    let etag = tag(&sha512_hex(&body));
    Tagged { body, etag }
}

/// The entity tag of a hash.
pub(crate) fn tag(hash: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{hash}\"")).expect("hexadecimal digits in quotes")
}

/// The upper-case hexadecimal SHA-512 that Kubernetes tags its documents with.
pub(crate) fn sha512_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = digest::digest(&digest::SHA512, bytes);
    digest.as_ref().iter().fold(String::with_capacity(128), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02X}");
        hex
    })
}

fn api_group(group: &str, versions: &[(GroupVersion, Served<'_>)]) -> Value {
    let named = |gv: &GroupVersion| json!({"groupVersion": gv.to_string(), "version": gv.version});
    let all: Vec<Value> = versions.iter().map(|(gv, _)| named(gv)).collect();
    json!({"name": group, "versions": all, "preferredVersion": all[0]})
}

fn resource_list(group_version: &GroupVersion, served: &Served<'_>) -> Value {
    let mut resources = Vec::new();
    for route in &served.routes {
        let definition = &route.resource.definition;
        let mut resource = json!({
            "name": definition.plural,
            "singularName": definition.singular,
            "namespaced": definition.namespaced,
            "kind": definition.kind,
            "verbs": VERBS,
            "storageVersionHash": storage_version_hash(definition),
        });
        if !definition.short_names.is_empty() {
            resource["shortNames"] = json!(definition.short_names);
        }
        if !definition.categories.is_empty() {
            resource["categories"] = json!(definition.categories);
        }
        resources.push(resource);
        for sub in subresources(definition) {
            let mut resource = json!({
                "name": format!("{}/{}", definition.plural, sub.name),
                "singularName": "",
                "namespaced": definition.namespaced,
                "kind": sub.kind(definition),
                "verbs": sub.verbs,
            });
            if let Some((gv, _)) = sub.other_kind {
                let (group, version) = gv.rsplit_once('/').unwrap_or(("", gv));
                resource["group"] = json!(group);
                resource["version"] = json!(version);
            }
            resources.push(resource);
        }
    }
    for kind in &served.virtuals {
        resources.push(json!({
            "name": kind.plural,
            "singularName": kind.kind.to_lowercase(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": ["create"],
        }));
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version.to_string(),
        "resources": resources,
    })
}

fn aggregated_group(group: &str, versions: &[(GroupVersion, Served<'_>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(gv, served)| {
            let stored = served
                .routes
                .iter()
                .map(|route| aggregated_resource(gv, &route.resource.definition));
            let virtuals = served.virtuals.iter().map(|kind| {
                json!({
                    "resource": kind.plural,
                    "responseKind": {"group": gv.group, "version": gv.version, "kind": kind.kind},
                    "scope": scope(kind.namespaced),
                    "singularResource": kind.kind.to_lowercase(),
                    "verbs": ["create"],
                })
            });
            let resources: Vec<Value> = stored.chain(virtuals).collect();
            json!({"version": gv.version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut document = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
    if !group.is_empty() {
        document["metadata"]["name"] = json!(group);
    }
    document
}

fn aggregated_resource(group_version: &GroupVersion, definition: &Definition) -> Value {
    let mut resource = json!({
        "resource": definition.plural,
        "responseKind": {"group": group_version.group, "version": group_version.version, "kind": definition.kind},
        "scope": scope(definition.namespaced),
        "singularResource": definition.singular,
        "verbs": VERBS,
    });
    if !definition.short_names.is_empty() {
        resource["shortNames"] = json!(definition.short_names);
    }
    if !definition.categories.is_empty() {
        resource["categories"] = json!(definition.categories);
    }
    let subresources: Vec<Value> = subresources(definition)
        .map(|sub| {
            let (group, version) = match sub.other_kind {
                Some((gv, _)) => gv.rsplit_once('/').unwrap_or(("", gv)),
                None => (group_version.group.as_str(), group_version.version.as_str()),
            };
            json!({
                "subresource": sub.name,
                "responseKind": {"group": group, "version": version, "kind": sub.kind(definition)},
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}

/// A subresource as discovery shows it.
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    /// Group version and kind, where they are not the parent's.
    pub(crate) other_kind: Option<(&'static str, &'static str)>,
    pub(crate) verbs: &'static [&'static str],
}

impl Subresource {
    fn kind<'a>(&self, parent: &'a Definition) -> &'a str {
        self.other_kind.map_or(parent.kind.as_str(), |(_, kind)| kind)
    }
}

/// The subresources of a kind, sorted by name.
pub(crate) fn subresources(definition: &Definition) -> impl Iterator<Item = Subresource> {
    let core = |kind: &str| definition.group.is_empty() && definition.kind == kind;
    let finalize = core("Namespace").then_some(Subresource {
        name: "finalize",
        other_kind: None,
        verbs: &["update"],
    });
    let scale = definition.subresources.scale.as_ref().map(|_| Subresource {
        name: "scale",
        other_kind: Some(("autoscaling/v1", "Scale")),
        verbs: &SUBRESOURCE_VERBS,
    });
    let status = definition.subresources.status.then_some(Subresource {
        name: "status",
        other_kind: None,
        verbs: &SUBRESOURCE_VERBS,
    });
    let token = core("ServiceAccount").then_some(Subresource {
        name: "token",
        other_kind: Some((virtuals::AUTHENTICATION, "TokenRequest")),
        verbs: &["create"],
    });
    [finalize, scale, status, token].into_iter().flatten()
}

/// The first eight bytes of the SHA-256 of `group/version/kind` as stored; the storage-version migrator compares them.
fn storage_version_hash(definition: &Definition) -> String {
    let GroupVersion { group, version } = &definition.storage;
    let name = format!("{group}/{version}/{}", definition.kind);
    BASE64_STANDARD.encode(&digest::digest(&digest::SHA256, name.as_bytes()).as_ref()[..8])
}

/// Sorts as Kubernetes sorts versions: GA over beta over alpha over anything else, then by number.
type Priority = (u8, u32, u32, Reverse<String>);

fn priority(version: &str) -> Priority {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, stage) = (rest[..digits].parse().ok()?, &rest[digits..]);
        if stage.is_empty() {
            Some((3, major, 0))
        } else if let Some(minor) = stage.strip_prefix("beta") {
            Some((2, major, minor.parse().ok()?))
        } else {
            Some((1, major, stage.strip_prefix("alpha")?.parse().ok()?))
        }
    };
    let (stage, major, minor) = parse().unwrap_or((0, 0, 0));
    (stage, major, minor, Reverse(version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_by_stability_then_number() {
        let mut versions = vec!["v1alpha1", "foo", "v1", "v2", "v1beta1", "v1beta2", "v10"];
        versions.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }

    #[test]
    fn the_aggregated_form_is_recognised_in_any_parameter_order() {
        for (accept, wanted) in [
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                true,
            ),
            (
                "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io;profile=nopeer",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                false,
            ),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(asks_for_aggregated(&headers), wanted, "{accept}");
        }
    }
}
