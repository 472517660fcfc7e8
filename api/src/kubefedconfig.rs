//! KubeFedConfig: how the controller manager behaves.

use std::time::Duration;

use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::table::Column;
use kubefed_apimachinery::{decode, duration, field};
use serde_json::{Value, json};

use crate::{CORE_GROUP, Kind};

/// The name of the one config that counts.
pub const NAME: &str = "kubefed";

const GATES: &[&str] = &["PushReconciler", "RawResourceStatusCollection", "SchedulerPreferences"];

/// Paths and defaults of the durations.
const DURATIONS: &[(&str, &str, &str)] = &[
    ("controllerDuration", "availableDelay", "20s"),
    ("controllerDuration", "unavailableDelay", "60s"),
    ("controllerDuration", "cacheSyncTimeout", "5m"),
    ("leaderElect", "leaseDuration", "15s"),
    ("leaderElect", "renewDeadline", "10s"),
    ("leaderElect", "retryPeriod", "5s"),
    ("clusterHealthCheck", "period", "10s"),
    ("clusterHealthCheck", "timeout", "3s"),
];
const NUMBERS: &[(&str, &str, i64)] = &[
    ("clusterHealthCheck", "failureThreshold", 3),
    ("clusterHealthCheck", "successThreshold", 1),
    ("syncController", "maxConcurrentReconciles", 1),
    ("statusController", "maxConcurrentReconciles", 1),
];

/// The config that holds while there is none: nobody writes it, so the first one that a user makes says what it likes.
pub fn default_config(namespace: &str) -> Value {
    let mut config = json!({
        "apiVersion": format!("{CORE_GROUP}/v1beta1"), "kind": "KubeFedConfig",
        "metadata": {"name": NAME, "namespace": namespace}, "spec": {"scope": "Cluster"},
    });
    defaults(&mut config);
    config
}

/// Reads a config of a file, YAML or JSON, with the defaults for what it leaves out.
///
/// # Errors
/// What is wrong with it, each field by its path.
pub fn read(bytes: &[u8], namespace: &str) -> Result<Value, String> {
    let decoded = decode::yaml(bytes).map_err(|error| error.to_string())?;
    if let Some(path) = decoded.duplicates.first() {
        return Err(format!("{path} is there twice"));
    }
    let mut config = decoded.value;
    let kind = [config["apiVersion"].as_str(), config["kind"].as_str()];
    let wanted = [format!("{CORE_GROUP}/v1beta1"), "KubeFedConfig".into()];
    if kind.map(Option::unwrap_or_default) != wanted.each_ref().map(String::as_str) {
        return Err(format!("it is not of apiVersion {} and kind {}", wanted[0], wanted[1]));
    }
    config["metadata"] = json!({"name": NAME, "namespace": namespace});
    let definition = definition();
    let schema = &definition.versions[0].schema;
    let unknown = schema.prune(&mut config);
    if !unknown.is_empty() {
        return Err(format!("unknown fields: {}", unknown.join(", ")));
    }
    defaults(&mut config);
    let mut errors = schema.validate(&config);
    if errors.is_empty() {
        errors = validate(&config);
    }
    match errors.is_empty() {
        true => Ok(config),
        false => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// The kind.
pub fn definition() -> Definition {
    Kind {
        kind: "KubeFedConfig",
        plural: "kubefedconfigs",
        short_names: &[],
        namespaced: true,
        status: false,
        versions: &[(CORE_GROUP, "v1beta1")],
        columns: vec![Column::new("Scope", "string", ".spec.scope", 0), Column::age()],
        schema: schema(),
        strategy: Strategy {
            defaults,
            validate,
            validate_update,
            warnings: crate::outside_of_system_namespace,
            ..Strategy::NONE
        },
    }
    .define()
}

fn schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let number = |description: &str| json!({"type": "integer", "format": "int64", "description": description});
    json!({
        "description": "KubeFedConfig says how the federation's controller manager behaves. Only the one called kubefed in the namespace of the control plane counts.",
        "type": "object",
        "required": ["spec"],
        "properties": {"spec": {
            "description": "What is wanted.",
            "type": "object",
            "required": ["scope"],
            "properties": {
                "scope": {"type": "string", "enum": ["Cluster", "Namespaced"], "description": "Whether the federation reaches every namespace or only that of the control plane. It cannot be changed."},
                "controllerDuration": {"type": "object", "description": "Delays of the controllers.", "properties": {
                    "availableDelay": text("How long a cluster must be ready before its objects are looked at again."),
                    "unavailableDelay": text("How long a cluster must be away before its objects are looked at again."),
                    "cacheSyncTimeout": text("How long to wait for caches to fill."),
                }},
                "leaderElect": {"type": "object", "description": "Leader election among controller managers.", "properties": {
                    "leaseDuration": text("How long a leader that is not heard of is still waited for."),
                    "renewDeadline": text("How long a leader tries to renew before it gives up."),
                    "retryPeriod": text("How often candidates try."),
                    "resourceLock": {"type": "string", "enum": ["configmaps", "endpoints", "leases"], "description": "The kind of lock. Each of them is kept as a Lease here."},
                }},
                "featureGates": {"type": "array", "description": "Features that are on or off. One that is not named has its default.", "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": text("The feature."),
                        "configuration": {"type": "string", "enum": ["Enabled", "Disabled"], "description": "Whether it is on."},
                        "enabled": {"type": "boolean", "description": "Whether it is on; the same as configuration."},
                    },
                }},
                "clusterHealthCheck": {"type": "object", "description": "How clusters are probed.", "properties": {
                    "period": text("How often."),
                    "failureThreshold": number("How many probes in a row must fail until a cluster is not ready."),
                    "successThreshold": number("How many probes in a row must succeed until a cluster is ready."),
                    "timeout": text("How long a probe may take."),
                }},
                "syncController": {"type": "object", "description": "How objects are synced.", "properties": {
                    "maxConcurrentReconciles": number("How many objects of a kind are worked on at a time."),
                    "adoptResources": {"type": "string", "enum": ["Enabled", "Disabled"], "description": "Whether objects that were in a cluster before are taken over."},
                }},
                "statusController": {"type": "object", "description": "How status is collected.", "properties": {
                    "maxConcurrentReconciles": number("How many objects of a kind are worked on at a time."),
                }},
            },
        }},
    })
}

fn defaults(config: &mut Value) {
    let Some(spec) = config.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let mut fill = |section: &str, field: &str, value: Value| {
        if spec[section].is_null() {
            spec[section] = json!({});
        }
        if spec[section].is_object() && spec[section][field].is_null() {
            spec[section][field] = value;
        }
    };
    for (section, field, value) in DURATIONS {
        fill(section, field, json!(value));
    }
    for (section, field, value) in NUMBERS {
        fill(section, field, json!(value));
    }
    fill("leaderElect", "resourceLock", json!("configmaps"));
    fill("syncController", "adoptResources", json!("Enabled"));
}

fn validate(config: &Value) -> Vec<field::Error> {
    let spec = &config["spec"];
    let root = field::Path::root("spec");
    let mut errors = Vec::new();
    for (section, name, _) in DURATIONS {
        let path = root.child(section).child(name);
        match spec[section][name].as_str().map(duration::parse) {
            Some(Ok(value)) if value > Duration::ZERO => {}
            Some(Err(why)) => {
                errors.push(field::Error::invalid(&path, spec[section][name].clone(), why))
            }
            _ => errors.push(field::Error::invalid(
                &path,
                spec[section][name].clone(),
                "should be greater than 0",
            )),
        }
    }
    for (section, name, _) in NUMBERS {
        if spec[section][name].as_i64().is_none_or(|number| number <= 0) {
            let path = root.child(section).child(name);
            errors.push(field::Error::invalid(
                &path,
                spec[section][name].clone(),
                "should be greater than 0",
            ));
        }
    }
    let election = LeaderElection::of(config);
    let path = root.child("leaderElect");
    if election.lease <= election.renew {
        let value = spec["leaderElect"]["leaseDuration"].clone();
        errors.push(field::Error::invalid(
            &path.child("leaseDuration"),
            value,
            "should be greater than renewDeadline",
        ));
    }
    if election.renew <= election.retry.mul_f64(1.2) {
        let value = spec["leaderElect"]["renewDeadline"].clone();
        errors.push(field::Error::invalid(
            &path.child("renewDeadline"),
            value,
            "should be greater than retryPeriod*JitterFactor(1.2)",
        ));
    }
    let mut seen = Vec::new();
    for (index, gate) in spec["featureGates"].as_array().into_iter().flatten().enumerate() {
        let path = root.child("featureGates").index(index);
        let name = gate["name"].as_str().unwrap_or("");
        if !GATES.contains(&name) {
            errors.push(field::Error::not_supported(&path.child("name"), json!(name), GATES));
        }
        if seen.contains(&name) {
            errors.push(field::Error::duplicate(&path.child("name"), json!(name)));
        }
        seen.push(name);
        match (gate["configuration"].as_str(), gate["enabled"].as_bool()) {
            (None, None) => {
                errors.push(field::Error::required(&path.child("configuration"), "or enabled"))
            }
            (Some(given), Some(enabled)) if (given == "Enabled") != enabled => {
                errors.push(field::Error::invalid(
                    &path.child("enabled"),
                    json!(enabled),
                    "contradicts configuration",
                ));
            }
            _ => {}
        }
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<field::Error> {
    if new["spec"]["scope"] == old["spec"]["scope"] {
        return Vec::new();
    }
    let path = field::Path::root("spec").child("scope");
    vec![field::Error::invalid(&path, new["spec"]["scope"].clone(), "field is immutable")]
}

fn duration_of(config: &Value, section: &str, field: &str) -> Duration {
    let default = DURATIONS
        .iter()
        .find(|(s, f, _)| *s == section && *f == field)
        .map_or("0", |(_, _, value)| value);
    let given = config["spec"][section][field].as_str().and_then(|text| duration::parse(text).ok());
    given.unwrap_or_else(|| duration::parse(default).unwrap_or_default())
}

/// Leader election as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    pub lease: Duration,
    pub renew: Duration,
    pub retry: Duration,
}

impl LeaderElection {
    pub fn of(config: &Value) -> Self {
        let of = |field| duration_of(config, "leaderElect", field);
        LeaderElection {
            lease: of("leaseDuration"),
            renew: of("renewDeadline"),
            retry: of("retryPeriod"),
        }
    }
}

/// Cluster probes as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub period: Duration,
    pub timeout: Duration,
    pub failure_threshold: u32,
    pub success_threshold: u32,
}

impl HealthCheck {
    pub fn of(config: &Value) -> Self {
        let number = |field: &str, default: u32| {
            config["spec"]["clusterHealthCheck"][field]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(default)
        };
        HealthCheck {
            period: duration_of(config, "clusterHealthCheck", "period"),
            timeout: duration_of(config, "clusterHealthCheck", "timeout"),
            failure_threshold: number("failureThreshold", 3),
            success_threshold: number("successThreshold", 1),
        }
    }
}

/// How long a cluster must be ready again, and how long away, before replicas are divided anew for that.
pub fn cluster_delays(config: &Value) -> (Duration, Duration) {
    let of = |field| duration_of(config, "controllerDuration", field);
    (of("availableDelay"), of("unavailableDelay"))
}

/// Whether a feature is on: as said, or else by its default.
pub fn gate(config: &Value, name: &str) -> bool {
    let gate = config["spec"]["featureGates"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|gate| gate["name"] == name);
    let default = name != "RawResourceStatusCollection";
    gate.map_or(default, |gate| match gate["configuration"].as_str() {
        Some(given) => given == "Enabled",
        None => gate["enabled"].as_bool().unwrap_or(default),
    })
}

/// How many objects of a kind are to be worked on at a time.
pub fn sync_workers(config: &Value) -> u64 {
    config["spec"]["syncController"]["maxConcurrentReconciles"].as_u64().unwrap_or(1)
}

/// Whether objects that were in a cluster before are taken over.
pub fn adopts(config: &Value) -> bool {
    config["spec"]["syncController"]["adoptResources"] != "Disabled"
}

/// Whether the federation reaches only the namespace of the control plane.
pub fn is_namespaced(config: &Value) -> bool {
    config["spec"]["scope"] == "Namespaced"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "apiVersion: core.kubefed.io/v1beta1\nkind: KubeFedConfig\nmetadata: {name: mine}\nspec:\n";

    #[test]
    fn a_file_is_read_with_the_defaults_for_what_it_leaves_out() {
        let spec = "  scope: Namespaced\n  clusterHealthCheck: {period: 1m}\n  featureGates:\n  - {name: PushReconciler, enabled: false}\n  - {name: RawResourceStatusCollection, configuration: Enabled}\n";
        let config = read(format!("{FILE}{spec}").as_bytes(), "here").unwrap();
        assert_eq!(config["metadata"], json!({"name": "kubefed", "namespace": "here"}));
        let check = HealthCheck::of(&config);
        assert_eq!((check.period.as_secs(), check.timeout.as_secs()), (60, 3));
        assert!(is_namespaced(&config) && !gate(&config, "PushReconciler"));
        assert!(gate(&config, "RawResourceStatusCollection"));
        assert_eq!(read(config.to_string().as_bytes(), "here").unwrap(), config);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        for (text, why) in [
            ("{", "error"),
            ("apiVersion: v1\nkind: ConfigMap", "KubeFedConfig"),
            (&format!("{FILE}  scope: Everywhere"), "spec.scope"),
            (&format!("{FILE}  scope: Cluster\n  scope: Cluster"), "spec.scope"),
            (&format!("{FILE}  scope: Cluster\n  leaderElection: {{}}"), "spec.leaderElection"),
            (
                &format!("{FILE}  scope: Cluster\n  clusterHealthCheck: {{period: 0s}}"),
                "spec.clusterHealthCheck.period",
            ),
        ] {
            let told = read(text.as_bytes(), "here").unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
