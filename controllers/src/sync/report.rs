//! Tells what was done: when the versions are recorded, the status, and the end of a deletion.

use std::collections::BTreeMap;

use kubefed_api::status::{self, ClusterStatus, Propagation};
use kubefed_apimachinery::{meta, time};
use serde_json::{Value, json};

use super::Sync;
use super::plan::Plan;
use crate::cache::Key;
use crate::client::Error;

impl Sync {
    pub(super) async fn report_for_ever(&self) {
        loop {
            let key = self.reports.next().await;
            match self.report(&key).await {
                Ok(()) => self.reports.done(&key),
                Err(error) => {
                    tracing::warn!(?key, %error, "a status was not written");
                    self.reports.failed(&key);
                }
            }
        }
    }

    async fn report(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.federated.objects.get(key) else { return Ok(()) };
        let (planned, mut outcomes, versions, recorded, pending) = {
            let work = self.work.lock();
            let Some(work) = work.get(key) else { return Ok(()) };
            let Some(planned) = work.planned.clone() else { return Ok(()) };
            let mut outcomes = work.outcomes.clone();
            let selected = &planned.plan.selected;
            for name in work.pending.iter().filter(|name| selected.contains(*name)) {
                let outcome = outcomes.entry(name.clone()).or_default();
                // That all was well there is of an older plan.
                if outcome.state == status::OK {
                    outcome.state = status::PENDING;
                }
            }
            (
                planned,
                outcomes,
                work.versions.clone(),
                work.recorded.clone(),
                !work.pending.is_empty(),
            )
        };
        let plan = &planned.plan;
        let is_gone = outcomes.is_empty() && versions.clusters.is_empty();
        // What is to be left needs no member: one that is away takes the mark off when it is back, since it is nobody's.
        if plan.deleting && !pending && (is_gone || plan.orphan) {
            return match self.release(&object).await {
                // A newer object is on its way to us.
                Err(error) if error.is_conflict() => Ok(()),
                released => released,
            };
        }
        let mut recording = Ok(());
        // Also while some are pending: what the others have must not be forgotten when this process ends.
        if !plan.deleting && recorded.as_ref() != Some(&versions) {
            recording = self.record(key, &object, &versions, recorded.is_some()).await;
            match &recording {
                Ok(()) => {
                    if let Some(work) = self.work.lock().get_mut(key) {
                        work.recorded = Some(versions);
                    }
                }
                // Its namespace is about to end, or we have no right to it: another try would not help.
                Err(error) if error.is_forbidden() => {
                    tracing::warn!(?key, %error, "its versions are not recorded");
                    recording = Ok(());
                }
                Err(_) => {}
            }
        }
        if pending && object["status"]["observedGeneration"] == meta::generation(&object) {
            // What is told already stands until the lanes are done: this comes again then.
            return recording;
        }
        let apart = if plan.deleting {
            // What it told goes with the object, and could not be made anew in a namespace that ends.
            Ok(())
        } else {
            self.tell_apart(key, &object, &mut outcomes).await
        };
        // Whoever waits for the status must not wait for these too.
        self.write_status(&object, plan, outcomes).await.and(recording).and(apart)
    }

    async fn write_status(
        &self,
        object: &Value,
        plan: &Plan,
        clusters: BTreeMap<String, ClusterStatus>,
    ) -> Result<(), Error> {
        let (mut reason, mut message) = (plan.reason, plan.message.clone());
        if reason == status::OK && !plan.unknown.is_empty() {
            reason = status::UNKNOWN_CLUSTERS;
            message = format!("no such cluster: {}", plan.unknown.join(", "));
        }
        if reason != status::OK {
            let misnamed = plan.ignored && self.config.is_namespaces();
            let event = if misnamed { "InvalidName" } else { reason };
            self.control.events.warn(object, &self.component(), event, &message);
        }
        let propagation =
            Propagation { generation: meta::generation(object), reason, message, clusters };
        let Some(status) =
            status::build(&object["status"], &propagation, &time::rfc3339(self.control.now()))
        else {
            return Ok(());
        };
        let path = format!("{}/status", self.object_path(object));
        match self.control.federation.merge(&path, &json!({"status": status})).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}
