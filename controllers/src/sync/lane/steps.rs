//! What is done with one object in a member, and what is told of it.

use std::sync::Arc;
use std::time::Instant;

use kubefed_api::{MANAGED_LABEL, deletion, status, versions};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use super::super::{Learned, Planned, plan};
use super::requests::{Deletion, Refused};
use super::{Lane, Task, outcome, tell, well};
use crate::cache::Key;
use crate::client::Error;

impl Lane {
    pub(super) async fn apply(&self, task: &Task<'_>, planned: &Arc<Planned>) -> Result<(), ()> {
        let Task { sync, key, .. } = *task;
        let cluster = &self.member.name;
        let desired = match self.desired(sync, planned, None) {
            Ok(desired) => desired,
            Err(why) => {
                self.tell(
                    task,
                    status::APPLY_OVERRIDES_FAILED,
                    &format!("{why} in cluster {cluster:?}"),
                );
                let outcome = outcome(status::APPLY_OVERRIDES_FAILED, &why);
                sync.done(key, cluster, Some(planned), Some(outcome), Learned::Nothing);
                return Ok(());
            }
        };
        if !self.may_ask(task) {
            return Ok(());
        }
        let is_new = task.observed.is_none();
        let (reason, doing) =
            if is_new { ("CreateInCluster", "Creating") } else { ("UpdateInCluster", "Updating") };
        self.say(task, reason, doing);
        let began = Instant::now();
        sync.may_be_there(key, cluster, planned);
        let written = self.write(task, planned, desired).await;
        self.note(
            sync,
            match &written {
                Err(Refused::By(error)) => Some(error),
                _ => None,
            },
        );
        let action = if is_new { "create" } else { "update" };
        sync.control.metrics.dispatched(action, began.elapsed());
        match written {
            Ok(mut written) => {
                let (generation, version) =
                    (meta::generation(&written), meta::resource_version(&written));
                let version = versions::object_version(generation, version);
                let remote = self.collects_status.then(|| written["status"].take());
                let outcome = well(remote.filter(|status| !status.is_null()));
                sync.done(key, cluster, Some(planned), Some(outcome), Learned::Has(version));
                Ok(())
            }
            Err(Refused::For(state, why)) => {
                self.tell(task, state, &format!("{why} in cluster {cluster:?}"));
                let outcome = outcome(state, &why);
                sync.done(key, cluster, Some(planned), Some(outcome), Learned::IsGone);
                Ok(())
            }
            Err(Refused::By(error)) => {
                let (state, reason) = if is_new {
                    (status::CREATION_FAILED, "CreateInClusterFailed")
                } else {
                    (status::UPDATE_FAILED, "UpdateInClusterFailed")
                };
                // A namespace that comes just after its objects is no failure to tell of.
                if !error.is_not_found() {
                    self.tell(task, reason, &self.failure(task, "apply", &error));
                }
                let outcome = outcome(state, &error.to_string());
                // Without an answer of the member itself it may have been written all the same.
                let is_refused = !task.recorded && !error.is_outage();
                let learned = if is_refused { Learned::IsGone } else { Learned::Nothing };
                sync.done(key, cluster, Some(planned), Some(outcome), learned);
                Err(())
            }
        }
    }

    pub(super) async fn delete(&self, task: &Task<'_>) -> Result<(), ()> {
        let Some(options) = delete_options(task) else {
            let (sync, planned) = (task.sync, task.planned);
            let why = planned.and_then(|planned| deletion::options(&planned.object).err());
            let why = why.unwrap_or_default();
            self.tell(task, "DeleteInClusterFailed", &why);
            // It is planned anew when the annotation changes; another try would not help before.
            let outcome = outcome(status::DELETION_FAILED, &why);
            sync.done(task.key, &self.member.name, planned, Some(outcome), Learned::Nothing);
            return Ok(());
        };
        self.say(task, "DeleteInCluster", "Deleting");
        let began = Instant::now();
        let deleted = self.delete_ours(task, options).await;
        self.note(task.sync, deleted.as_ref().err());
        task.sync.control.metrics.dispatched("delete", began.elapsed());
        let (outcome, learned, result) = match deleted {
            Ok(Deletion::Gone) => (None, Learned::IsGone, Ok(())),
            Ok(Deletion::Going) => {
                (Some(outcome(status::WAITING_FOR_REMOVAL, "")), Learned::Nothing, Ok(()))
            }
            Ok(Deletion::Hosts) => return self.unmark(task).await,
            Ok(Deletion::Unsure(error)) | Err(error) => {
                self.tell(task, "DeleteInClusterFailed", &self.failure(task, "delete", &error));
                let outcome = outcome(status::DELETION_FAILED, &error.to_string());
                (Some(outcome), Learned::Nothing, Err(()))
            }
        };
        task.sync.done(task.key, &self.member.name, task.planned, outcome, learned);
        result
    }

    pub(super) async fn unmark(&self, task: &Task<'_>) -> Result<(), ()> {
        let Task { sync, client, key, planned, .. } = *task;
        let cluster = &self.member.name;
        self.say(task, "RemoveManagedLabelFromInCluster", "Removing managed label from");
        let patch = json!({"metadata": {"labels": {MANAGED_LABEL: null}}});
        let path = self.target_path(sync, key, &sync.config.target.api_version());
        let unmarked = match task.observed {
            Some(_) => client.merge(&path, &patch).await,
            // We wrote it, but do not see it: it may be somebody else's, who says so by the same label.
            None => match client.get(&path).await {
                Ok(there) if plan::is_ours(&there) => client.merge(&path, &patch).await,
                answer => answer,
            },
        };
        self.note(sync, unmarked.as_ref().err());
        match unmarked {
            Err(error) if !error.is_not_found() => {
                let text = self.failure(task, "let go of", &error);
                self.tell(task, "RemoveManagedLabelFromInClusterFailed", &text);
                let outcome = outcome(status::LABEL_REMOVAL_FAILED, &error.to_string());
                sync.done(key, cluster, planned, Some(outcome), Learned::Nothing);
                Err(())
            }
            _ => {
                sync.done(key, cluster, planned, None, Learned::IsGone);
                Ok(())
            }
        }
    }

    /// Tells what is done, in KubeFed's words.
    pub(super) fn say(&self, task: &Task<'_>, reason: &str, doing: &str) {
        let Some(planned) = task.planned else { return };
        let Key { namespace, name } = task.sync.key_there(task.key);
        let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
        let (kind, cluster) = (&task.sync.config.target.kind, &self.member.name);
        let text = format!("{doing} {kind} {name:?} in cluster {cluster:?}");
        let component = task.sync.component();
        task.sync.control.events.note(&planned.object, &component, reason, &text);
    }

    fn failure(&self, task: &Task<'_>, what: &str, error: &Error) -> String {
        let kind = &task.sync.config.target.kind;
        let (name, cluster) = (&task.key.name, &self.member.name);
        format!("Failed to {what} {kind} {name:?} in cluster {cluster:?}: {error}")
    }

    pub(super) fn tell(&self, task: &Task<'_>, reason: &str, message: &str) {
        tell(task.sync, task.planned, reason, message);
    }
}

/// The options of the annotation are for the deletion of the federated object alone. None if they are not understood.
fn delete_options(task: &Task<'_>) -> Option<Value> {
    match task.planned {
        Some(planned) if planned.plan.deleting => planned.plan.delete_options.clone(),
        _ => Some(json!({"apiVersion": "v1", "kind": "DeleteOptions"})),
    }
}
