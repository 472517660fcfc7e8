//! Defaults and immutable fields of the workload kinds, as far as users of a local member see them.

use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field;
use kubefed_apimachinery::labels::Selector;
use serde_json::{Value, json};

pub(super) const DEPLOYMENT: Strategy = Strategy {
    defaults: default_deployment,
    validate: validate_selector,
    validate_update: same_selector,
    ..Strategy::NONE
};

pub(super) const REPLICATED: Strategy = Strategy {
    defaults: default_replicas,
    validate: validate_selector,
    validate_update: same_selector,
    ..Strategy::NONE
};

pub(super) const STATEFUL_SET: Strategy = Strategy { defaults: default_stateful_set, ..REPLICATED };

pub(super) const DAEMON_SET: Strategy = Strategy { defaults: default_daemon_set, ..REPLICATED };

pub(super) const CRON_JOB: Strategy = Strategy { defaults: default_cron_job, ..Strategy::NONE };

pub(super) const JOB: Strategy = Strategy { defaults: default_job, ..Strategy::NONE };

fn default(object: &mut Value, field: &str, value: Value) {
    if object.is_object() && object[field].is_null() {
        object[field] = value;
    }
}

fn default_replicas(object: &mut Value) {
    default(&mut object["spec"], "replicas", json!(1));
}

fn default_deployment(deployment: &mut Value) {
    default_replicas(deployment);
    let spec = &mut deployment["spec"];
    default(spec, "strategy", json!({"type": "RollingUpdate"}));
    if spec["strategy"]["type"] == "RollingUpdate" {
        default(
            &mut spec["strategy"],
            "rollingUpdate",
            json!({"maxSurge": "25%", "maxUnavailable": "25%"}),
        );
    }
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
}

fn default_stateful_set(set: &mut Value) {
    default_replicas(set);
    let spec = &mut set["spec"];
    default(spec, "podManagementPolicy", json!("OrderedReady"));
    let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    default(spec, "persistentVolumeClaimRetentionPolicy", retain);
    default_rolling_update(spec, json!({"partition": 0}));
}

fn default_daemon_set(set: &mut Value) {
    default_rolling_update(&mut set["spec"], json!({"maxSurge": 0, "maxUnavailable": 1}));
}

fn default_rolling_update(spec: &mut Value, rolling_update: Value) {
    default(spec, "updateStrategy", json!({"type": "RollingUpdate"}));
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        default(&mut spec["updateStrategy"], "rollingUpdate", rolling_update);
    }
    default(spec, "revisionHistoryLimit", json!(10));
}

fn default_cron_job(job: &mut Value) {
    let spec = &mut job["spec"];
    default(spec, "concurrencyPolicy", json!("Allow"));
    default(spec, "suspend", json!(false));
    default(spec, "successfulJobsHistoryLimit", json!(3));
    default(spec, "failedJobsHistoryLimit", json!(1));
}

fn default_job(job: &mut Value) {
    let spec = &mut job["spec"];
    default(spec, "parallelism", json!(1));
    default(spec, "completions", json!(1));
    default(spec, "backoffLimit", json!(6));
}

fn validate_selector(object: &Value) -> Vec<field::Error> {
    let path = field::Path::root("spec").child("selector");
    let selector = match Selector::from_label_selector(&object["spec"]["selector"]) {
        Ok(selector) => selector,
        Err(problem) => {
            return vec![field::Error::invalid(
                &path,
                object["spec"]["selector"].clone(),
                &problem,
            )];
        }
    };
    if selector.is_everything() {
        return vec![field::Error::invalid(
            &path,
            object["spec"]["selector"].clone(),
            "empty selector is invalid",
        )];
    }
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    if !selector.matches(|key| labels.get(key).and_then(Value::as_str)) {
        let path = field::Path::root("spec").child("template").child("metadata").child("labels");
        return vec![field::Error::invalid(
            &path,
            labels.clone(),
            "`selector` does not match template `labels`",
        )];
    }
    Vec::new()
}

fn same_selector(new: &Value, old: &Value) -> Vec<field::Error> {
    if new["spec"]["selector"] == old["spec"]["selector"] {
        return Vec::new();
    }
    let path = field::Path::root("spec").child("selector");
    vec![field::Error::invalid(&path, new["spec"]["selector"].clone(), "field is immutable")]
}
