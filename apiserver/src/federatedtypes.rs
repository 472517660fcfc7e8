//! Serves a federated kind for each FederatedTypeConfig, from the moment the config is there; and, as an extension of a
//! host, the kinds that the host defines in our groups. Which wins where two say the same name:
//!
//! 1. a kind that the server has of its own: KubeFed's chart defines kinds of the very same names,
//! 2. the kind of a config: the controllers write more into its status than KubeFed's definitions let stand. Its
//!    template is checked by the schema of the target that is built in, else by that of the host's definition, so that
//!    whatever the host would have accepted for a kind that we know nothing of is accepted,
//! 3. what the host defines, in the versions that it leads to us. Its other versions stay the host's.
//!
//! A kind that goes leaves its objects in the store: they are back with the config or the definition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kubefed_api::federated;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::gvk::{GroupResource, GroupVersion};
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, ListQuery};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::builtin;
use crate::customresources::{self, Names};
use crate::host::Definitions;
use crate::loopback::Loopback;
use crate::registry::{Kind, Route, Served};
use crate::server::{MANAGER, Server};

const GROUP: &str = "core.kubefed.io";
const PLURAL: &str = "federatedtypeconfigs";

/// The kinds of the FederatedTypeConfigs in the control plane's namespace, and those that the host defines.
pub(crate) struct FederatedTypes {
    loopback: Loopback,
    namespace: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    served: Served,
    /// The configs by name as they could last be read.
    configs: BTreeMap<String, Config>,
    /// Definitions of the host that are not served, or not as a whole, and why.
    passed_over: BTreeMap<String, String>,
}

/// A config, and what it was read from.
#[derive(Clone, Debug, PartialEq)]
struct Config {
    spec: Value,
    read: FederatedTypeConfig,
}

impl FederatedTypes {
    pub(crate) fn new(server: &Arc<Server>, namespace: String) -> Self {
        FederatedTypes {
            loopback: Loopback::new(server, MANAGER),
            namespace,
            state: Mutex::default(),
        }
    }

    fn definitions(&self) -> Option<&Definitions> {
        self.loopback.server().host.as_ref().map(|host| host.definitions())
    }

    /// Follows the configs and the host's definitions until the server stops.
    pub(crate) async fn run(self) {
        let of_host = async {
            let Some(definitions) = self.definitions() else { return std::future::pending().await };
            let mut changes = definitions.changes();
            // Whatever was seen before this began is looked at once more.
            changes.mark_changed();
            while changes.changed().await.is_ok() {
                self.look().await;
            }
        };
        tokio::select! {
            () = self.loopback.follow_all(GROUP, PLURAL, || self.look()) => {}
            () = of_host => {}
        }
    }

    async fn look(&self) {
        if let Err(status) = self.reconcile().await {
            tracing::warn!(%status, "the FederatedTypeConfigs cannot be read");
        }
    }

    /// Serves just the kinds that are named now. A config that makes no kind leaves the others alone.
    ///
    /// # Errors
    /// If the configs can't be read.
    pub(crate) async fn reconcile(&self) -> Result<(), Status> {
        let mut state = self.state.lock().await;
        let State { served, configs, passed_over } = &mut *state;
        let listed = self.loopback.list(GROUP, PLURAL, &self.namespace).await?;
        for (name, error) in take_up(&listed, configs) {
            let kept = configs.contains_key(&name);
            tracing::warn!(config = name, error, kept, "a FederatedTypeConfig makes no kind");
        }
        let mut led = kubefed_api::group_versions();
        led.extend(configs.values().map(|config| GroupVersion {
            group: config.read.federated.group.clone(),
            version: config.read.federated.version.clone(),
        }));
        let mut crds = Vec::new();
        if let Some(definitions) = self.definitions() {
            definitions.look_at(&led.iter().map(|known| known.group.clone()).collect());
            let seen = definitions.seen().unwrap_or_default();
            crds.extend(seen.values().map(|crd| confine(crd, &led)));
        }

        let registry = &self.loopback.server().registry;
        let catalog = registry.catalog();
        let own = catalog.iter().filter(|resource| !served.has(&resource.group_resource()));
        let mut own: Vec<(String, Names)> = own
            .flat_map(|resource| {
                let names = Names::of(&resource.definition);
                let versions = resource.definition.versions.iter();
                versions.map(move |version| (version.group_version.group.clone(), names.clone()))
            })
            .collect();
        own.extend(configs.values().map(|config| names_of(&config.read)));

        let mut kinds: Vec<Kind<'_>> =
            configs.iter().map(|(name, config)| of_config(name, config, &crds)).collect();
        let mut left = BTreeMap::new();
        for (crd, elsewhere) in &crds {
            let name = meta::name(crd).to_owned();
            match customresources::beside(crd, &own) {
                Ok(names) => {
                    kinds.push(of_definition(crd, names));
                    if !elsewhere.is_empty() {
                        let versions = elsewhere.join(", ");
                        left.insert(name, format!("the host does not lead {versions} to us: it serves them itself, with objects of its own"));
                    }
                }
                Err(why) => drop(left.insert(name, why)),
            }
        }
        for (name, why) in left.iter().filter(|(name, why)| passed_over.get(*name) != Some(why)) {
            tracing::info!(
                name,
                why,
                "a CustomResourceDefinition of the host is not served as it is"
            );
        }
        *passed_over = left;
        for (kind, error) in served.serve(registry, kinds) {
            tracing::warn!(%kind, error, "a kind is not served");
        }
        Ok(())
    }
}

/// What whoever deletes a config is to know: objects that nobody reaches without it. Nothing where the host defines
/// their kind too, for then it goes on being served.
pub(crate) async fn left_behind(
    server: &Server,
    route: &Route,
    namespace: &str,
    name: &str,
) -> Option<String> {
    let definition = &route.resource.definition;
    if (definition.group.as_str(), definition.plural.as_str()) != (GROUP, PLURAL)
        || server.federation.as_deref() != Some(namespace)
    {
        return None;
    }
    let config = route.resource.get(namespace, name, At::Any).await.ok()?;
    let config = FederatedTypeConfig::from_value(&config.value().ok()?).ok()?;
    let resource = resource_of(&config);
    let seen = server.host.as_ref().and_then(|host| host.definitions().seen());
    if seen
        .is_some_and(|seen| seen.values().any(|crd| customresources::resource_of(crd) == resource))
    {
        return None;
    }
    let kind = server.registry.resource(&resource.group, &resource.resource)?;
    let query = ListQuery { prefix: String::new(), start: None, at: At::Latest };
    let count = kind.cacher.list(query).await.ok()?.iter().count();
    let stay = match count {
        0 => return None,
        1 => format!("1 object of {resource} stays"),
        count => format!("{count} objects of {resource} stay"),
    };
    Some(format!(
        "{stay} in the store, and nobody reaches them until there is a FederatedTypeConfig for them again; members keep what was propagated"
    ))
}

/// Makes `known` what is listed. Returns why a config could not be read: then it stays as it was, for kinds do not go
/// by an accident.
fn take_up(listed: &[Value], known: &mut BTreeMap<String, Config>) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    let mut before = std::mem::take(known);
    for config in listed {
        let name = meta::name(config).to_owned();
        let earlier = before.remove(&name);
        let read = FederatedTypeConfig::from_value(config).and_then(|read| {
            let federated = &read.federated;
            let is_whole = [&federated.group, &federated.version, &federated.kind];
            match is_whole.iter().any(|text| text.is_empty()) {
                false => Ok(Config { spec: config["spec"].clone(), read }),
                true => Err("spec.federatedType names no group, version and kind".into()),
            }
        });
        let config = read.map_err(|error| failures.push((name.clone(), error))).ok().or(earlier);
        known.extend(config.map(|config| (name, config)));
    }
    failures
}

fn resource_of(config: &FederatedTypeConfig) -> GroupResource {
    GroupResource {
        group: config.federated.group.clone(),
        resource: config.federated.plural_name.clone(),
    }
}

/// The names that the kind of a config has, with its group.
fn names_of(config: &FederatedTypeConfig) -> (String, Names) {
    let federated = &config.federated;
    let names = Names {
        plural: federated.plural_name.clone(),
        singular: federated.kind.to_lowercase(),
        kind: federated.kind.clone(),
        list_kind: format!("{}List", federated.kind),
        ..Names::default()
    };
    (federated.group.clone(), names)
}

/// A definition with just those of its versions served that are `led` to us, and the names of the others.
fn confine(crd: &Value, led: &BTreeSet<GroupVersion>) -> (Value, Vec<String>) {
    let (mut crd, mut others) = (crd.clone(), Vec::new());
    let group = crd["spec"]["group"].as_str().unwrap_or("").to_owned();
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let name = version["name"].as_str().unwrap_or("").to_owned();
        if version["served"] == true
            && !led.contains(&GroupVersion { group: group.clone(), version: name.clone() })
        {
            version["served"] = json!(false);
            others.push(name);
        }
    }
    (crd, others)
}

fn of_config<'a>(name: &str, config: &'a Config, crds: &'a [(Value, Vec<String>)]) -> Kind<'a> {
    let Config { spec, read } = config;
    let (resource, target) = (resource_of(read), &read.target);
    let is_known = builtin::is_known(&target.group, &target.version, &target.kind);
    let crd = crds.iter().map(|(crd, _)| crd).filter(|_| !is_known);
    let crd = crd.into_iter().find(|crd| customresources::resource_of(crd) == resource);
    Kind {
        resource,
        made_of: json!([name, spec, crd.map(made_of)]),
        make: Box::new(move || {
            let schema = builtin::target_schema(&target.group, &target.version, &target.kind);
            // A target that nobody knows takes any template.
            let schema = schema
                .or_else(|| crd.and_then(|crd| federated::target_in(crd, &read.federated.version)));
            federated::definition(read, schema)
        }),
    }
}

fn of_definition(crd: &Value, names: Names) -> Kind<'_> {
    Kind {
        resource: customresources::resource_of(crd),
        made_of: json!([made_of(crd), names, customresources::is_terminating(crd)]),
        make: Box::new(move || {
            tracing::info!(
                name = meta::name(crd),
                "served as the host defines it; objects that the host has stored itself, before it led the group here, are not seen"
            );
            customresources::definition_of(crd, &names)
        }),
    }
}

fn made_of(crd: &Value) -> Value {
    // A version may be led to us although the definition is the same.
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let served: Vec<&Value> = versions.map(|version| &version["served"]).collect();
    json!([meta::uid(crd), meta::generation(crd), served])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_definition_those_versions_are_served_that_are_led_to_us() {
        let version = |name: &str, served: bool| json!({"name": name, "served": served});
        let versions = [version("v1beta1", true), version("v2", true), version("v3", false)];
        let crd = json!({"spec": {"group": "types.kubefed.io", "versions": versions}});
        let served = |crd: &Value| -> Vec<bool> {
            let versions = crd["spec"]["versions"].as_array().unwrap();
            versions.iter().map(|version| version["served"] == true).collect()
        };
        let (confined, others) = confine(&crd, &kubefed_api::group_versions());
        assert_eq!((served(&confined), others), (vec![true, false, false], vec!["v2".to_owned()]));
        let two = GroupVersion { group: "types.kubefed.io".into(), version: "v2".into() };
        let (confined, others) = confine(&crd, &BTreeSet::from([two]));
        assert_eq!(
            (served(&confined), others),
            (vec![false, true, false], vec!["v1beta1".to_owned()])
        );
        assert_ne!(made_of(&confined), made_of(&crd));
    }

    #[test]
    fn a_config_that_cannot_be_read_any_more_stays_as_it_was_until_it_goes() {
        let good = kubefed_api::federatedtypeconfig::defaults();
        let mut known = BTreeMap::new();
        assert!(take_up(&good, &mut known).is_empty());
        assert_eq!(known.len(), good.len());
        let before = known.clone();
        for (pointer, value) in [
            ("/spec/federatedType", json!("x")),
            ("/spec/targetType", json!({"scope": 1})),
            ("/spec/federatedType/kind", json!("")),
        ] {
            let mut broken = good.clone();
            *broken[0].pointer_mut(pointer).unwrap() = value;
            let failures = take_up(&broken, &mut known);
            assert_eq!(failures.len(), 1, "{pointer}: {failures:?}");
            assert_eq!(failures[0].0, meta::name(&good[0]));
            assert_eq!(known, before, "{pointer}");
            assert!(take_up(&good, &mut known).is_empty(), "{pointer}");
        }
        assert!(take_up(&good[1..], &mut known).is_empty());
        assert_eq!(known.len(), good.len() - 1, "one that is gone is gone");
        let mut broken = good;
        broken[0]["spec"] = json!({});
        assert_eq!(take_up(&broken, &mut known).len(), 1);
        assert_eq!(known.len(), broken.len() - 1, "one that never was good makes no kind");
    }
}
