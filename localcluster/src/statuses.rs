//! What the controllers of a cluster without trouble write into the statuses of workloads, as a table: every replica that
//! is wanted is there, of the newest template, and ready.

use kubefed_apimachinery::meta;
use serde_json::{Map, Value, json};

/// What a number of a status follows from.
#[derive(Clone, Copy, PartialEq)]
enum Number {
    Generation,
    Replicas,
    /// How often a Job's pods succeed.
    Completions,
    Nodes,
    Zero,
}

use Number::{Completions, Generation, Nodes, Replicas, Zero};

/// A condition that is true: its type, reason, message, and its times beside `lastTransitionTime`.
type Condition = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// The status of one kind, or of some objects of it.
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    kind: &'static str,
    /// Which objects it is for; an object has the first row that is for it.
    when: fn(&Value) -> bool,
    /// Numbers that are told even if they are zero, as Kubernetes' types have it, and others.
    always: &'static [(&'static str, Number)],
    numbers: &'static [(&'static str, Number)],
    /// Fields with the name of the newest revision.
    revisions: &'static [&'static str],
    /// When it happened, once: an object that has these is done.
    times: &'static [&'static str],
    conditions: &'static [Condition],
}

const ANY: Row = Row {
    group: "",
    plural: "",
    kind: "",
    when: |_| true,
    always: &[],
    numbers: &[],
    revisions: &[],
    times: &[],
    conditions: &[],
};

/// What keeps copies of one pod.
const COPIES: Row = Row {
    always: &[("replicas", Replicas)],
    numbers: &[
        ("observedGeneration", Generation),
        ("fullyLabeledReplicas", Replicas),
        ("readyReplicas", Replicas),
        ("availableReplicas", Replicas),
    ],
    ..ANY
};

pub(crate) static ROWS: &[Row] = &[
    Row {
        group: "apps",
        plural: "daemonsets",
        kind: "DaemonSet",
        always: &[
            ("currentNumberScheduled", Nodes),
            ("desiredNumberScheduled", Nodes),
            ("numberMisscheduled", Zero),
            ("numberReady", Nodes),
        ],
        numbers: &[
            ("observedGeneration", Generation),
            ("updatedNumberScheduled", Nodes),
            ("numberAvailable", Nodes),
        ],
        ..ANY
    },
    Row {
        group: "apps",
        plural: "deployments",
        kind: "Deployment",
        numbers: &[
            ("observedGeneration", Generation),
            ("replicas", Replicas),
            ("updatedReplicas", Replicas),
            ("readyReplicas", Replicas),
            ("availableReplicas", Replicas),
        ],
        conditions: &[
            (
                "Available",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                &["lastUpdateTime"],
            ),
            (
                "Progressing",
                "NewReplicaSetAvailable",
                "The replicas are available.",
                &["lastUpdateTime"],
            ),
        ],
        ..ANY
    },
    Row { group: "apps", plural: "replicasets", kind: "ReplicaSet", ..COPIES },
    Row { group: "", plural: "replicationcontrollers", kind: "ReplicationController", ..COPIES },
    Row {
        group: "apps",
        plural: "statefulsets",
        kind: "StatefulSet",
        always: &[
            ("replicas", Replicas),
            ("availableReplicas", Replicas),
            ("collisionCount", Zero),
        ],
        numbers: &[
            ("observedGeneration", Generation),
            ("readyReplicas", Replicas),
            ("currentReplicas", Replicas),
            ("updatedReplicas", Replicas),
        ],
        revisions: &["currentRevision", "updateRevision"],
        ..ANY
    },
    Row {
        group: "batch",
        plural: "jobs",
        kind: "Job",
        when: |job| job["spec"]["suspend"] == true,
        always: &[("ready", Zero), ("terminating", Zero)],
        conditions: &[("Suspended", "JobSuspended", "Job suspended", &["lastProbeTime"])],
        ..ANY
    },
    Row {
        group: "batch",
        plural: "jobs",
        kind: "Job",
        always: &[("ready", Zero), ("terminating", Zero)],
        numbers: &[("succeeded", Completions)],
        times: &["startTime", "completionTime"],
        conditions: &[
            (
                "SuccessCriteriaMet",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                &["lastProbeTime"],
            ),
            (
                "Complete",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                &["lastProbeTime"],
            ),
        ],
        ..ANY
    },
];

/// What a status depends on beside its object.
pub(crate) struct Facts<'a> {
    pub(crate) nodes: i64,
    pub(crate) now: &'a str,
}

/// The status that an object is to have, or `None` if it has it.
pub(crate) fn status(object: &Value, facts: &Facts<'_>) -> Option<Value> {
    let kind = object["kind"].as_str()?;
    let row = ROWS.iter().find(|row| row.kind == kind && (row.when)(object))?;
    let live = &object["status"];
    if !row.times.is_empty() && row.times.iter().all(|time| live[time].is_string()) {
        return None;
    }
    let spec = &object["spec"];
    let number = |number| match number {
        Generation => meta::generation(object),
        Replicas => spec["replicas"].as_i64().unwrap_or(1),
        Completions => spec["completions"].as_i64().unwrap_or(1),
        Nodes => facts.nodes,
        Zero => 0,
    };
    let mut status = Map::new();
    for (field, of) in row.always {
        status.insert((*field).into(), json!(number(*of)));
    }
    for (field, of) in row.numbers.iter().filter(|(_, of)| number(*of) != 0) {
        status.insert((*field).into(), json!(number(*of)));
    }
    for field in row.revisions {
        let revision = format!("{}-{}", meta::name(object), template_hash(&spec["template"]));
        status.insert((*field).into(), json!(revision));
    }
    for field in row.times {
        status.insert((*field).into(), json!(facts.now));
    }
    if !row.conditions.is_empty() {
        let conditions = row.conditions.iter().map(|row| condition(row, live, facts.now));
        status.insert("conditions".into(), conditions.collect());
    }
    let status = Value::Object(status);
    (*live != status).then_some(status)
}

/// A condition, with the times that it has had since it became true.
fn condition((kind, reason, message, times): &Condition, live: &Value, now: &str) -> Value {
    let mut condition =
        json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let known = live["conditions"].as_array().into_iter().flatten();
    let known = known.into_iter().find(|known| known["type"] == *kind && known["status"] == "True");
    for time in std::iter::once(&"lastTransitionTime").chain(*times) {
        let since = known.map(|known| &known[time]).filter(|since| since.is_string());
        condition[time] = since.cloned().unwrap_or_else(|| json!(now));
    }
    condition
}

/// Ten letters that stand for a template: FNV-1a over its canonical form.
pub(crate) fn template_hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = template.to_string();
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..10)
        .map(|_| {
            let letter = ALPHABET[(hash % ALPHABET.len() as u64) as usize];
            hash /= ALPHABET.len() as u64;
            letter as char
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Facts<'_> = Facts { nodes: 2, now: "2024-01-01T00:00:00Z" };
    const LATE: Facts<'_> = Facts { nodes: 2, now: "2025-01-01T00:00:00Z" };

    fn object(kind: &str, spec: Value) -> Value {
        json!({"kind": kind, "metadata": {"name": "web", "generation": 2}, "spec": spec})
    }

    #[test]
    fn every_workload_is_as_it_is_wanted_and_stays_so() {
        for (kind, spec, wanted) in [
            (
                "Deployment",
                json!({"replicas": 3}),
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}),
            ),
            ("Deployment", json!({"replicas": 0}), json!({"observedGeneration": 2})),
            (
                "ReplicaSet",
                json!({}),
                json!({"observedGeneration": 2, "replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}),
            ),
            (
                "ReplicationController",
                json!({"replicas": 0}),
                json!({"observedGeneration": 2, "replicas": 0}),
            ),
            (
                "DaemonSet",
                json!({}),
                json!({
                    "observedGeneration": 2, "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
                    "numberReady": 2, "updatedNumberScheduled": 2, "numberAvailable": 2,
                }),
            ),
            (
                "Job",
                json!({"completions": 4}),
                json!({"ready": 0, "terminating": 0, "succeeded": 4, "startTime": EARLY.now, "completionTime": EARLY.now}),
            ),
            ("Job", json!({"suspend": true}), json!({"ready": 0, "terminating": 0})),
        ] {
            let mut object = object(kind, spec);
            let mut found = status(&object, &EARLY).unwrap();
            object["status"] = found.clone();
            assert_eq!(status(&object, &LATE), None, "{kind}");
            found.as_object_mut().unwrap().remove("conditions");
            assert_eq!(found, wanted, "{kind}");
        }
        assert_eq!(status(&object("CronJob", json!({})), &EARLY), None);
    }

    #[test]
    fn a_new_template_of_a_stateful_set_is_a_new_revision() {
        let set = |image: &str| {
            object("StatefulSet", json!({"replicas": 2, "template": {"spec": {"image": image}}}))
        };
        let status = |image: &str| status(&set(image), &EARLY).unwrap();
        let (a, b) = (status("a"), status("b"));
        assert_eq!(a["currentRevision"], a["updateRevision"]);
        assert_ne!(a["updateRevision"], b["updateRevision"]);
        assert_eq!((&a["currentReplicas"], &a["updatedReplicas"]), (&json!(2), &json!(2)));
    }

    #[test]
    fn a_condition_keeps_the_time_when_it_became_true() {
        let mut deployment = object("Deployment", json!({"replicas": 1}));
        deployment["status"] = status(&deployment, &EARLY).unwrap();
        deployment["spec"]["replicas"] = json!(2);
        let changed = status(&deployment, &LATE).unwrap();
        assert_eq!(changed["conditions"], deployment["status"]["conditions"]);
        assert_eq!(changed["conditions"][0]["lastTransitionTime"], EARLY.now);
        assert_eq!(changed["conditions"][0]["lastUpdateTime"], EARLY.now);
    }

    #[test]
    fn a_job_that_is_resumed_completes_once() {
        let mut job = object("Job", json!({"suspend": true}));
        job["status"] = status(&job, &EARLY).unwrap();
        assert_eq!(job["status"]["conditions"][0]["type"], "Suspended");
        job["spec"]["suspend"] = json!(false);
        job["status"] = status(&job, &EARLY).unwrap();
        assert_eq!(job["status"]["conditions"][1]["type"], "Complete");
        job["metadata"]["generation"] = json!(9);
        assert_eq!(status(&job, &LATE), None);
    }
}
