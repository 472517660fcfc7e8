//! What is asked of a member to write an object there and to delete it.

use kubefed_api::{MANAGED_LABEL, kubefedconfig, status};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use super::super::Planned;
use super::super::plan;
use super::{Lane, Task};
use crate::client::Error;

impl Lane {
    /// Writes the object. One that was there before us is taken over only if that is wanted and it does not refuse.
    pub(super) async fn write(
        &self,
        task: &Task<'_>,
        planned: &Planned,
        mut desired: Value,
    ) -> Result<Value, Refused> {
        let Task { sync, client, key, .. } = *task;
        let target = self.target_path(sync, key, desired["apiVersion"].as_str().unwrap_or(""));
        if task.observed.is_some() {
            if planned.plan.retains_replicas {
                let there = client.get(&target).await.map_err(Refused::By)?;
                retain_replicas(&mut desired, &there);
            }
            return client.apply(&target, &desired, true).await.map_err(Refused::By);
        }
        let adopts = kubefedconfig::adopts(&sync.control.config.borrow());
        if adopts {
            // Without force a field that somebody else set is a conflict: then the object was there before us, or
            // somebody took our mark off.
            match client.apply(&target, &desired, false).await {
                Err(error) if error.is_conflict() => {}
                written => return written.map_err(Refused::By),
            }
        }
        match client.get(&target).await {
            Ok(there) if plan::refuses(&there) => {
                let why = format!("the object has the label {MANAGED_LABEL}=false");
                return Err(Refused::For(status::MANAGED_LABEL_FALSE, why));
            }
            Ok(there) => {
                if !plan::is_ours(&there) {
                    if !adopts {
                        let why = "the object was there before, and adoption is disabled";
                        return Err(Refused::For(status::ALREADY_EXISTS, why.into()));
                    }
                    let text = format!(
                        "the object was there before in cluster {:?} and is taken over",
                        self.member.name
                    );
                    self.tell(task, "AdoptedInCluster", &text);
                }
                if planned.plan.retains_replicas {
                    retain_replicas(&mut desired, &there);
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(Refused::By(error)),
        }
        client.apply(&target, &desired, true).await.map_err(Refused::By)
    }

    /// Deletes the object if it is ours still.
    pub(super) async fn delete_ours(&self, task: &Task<'_>) -> Result<Deletion, Error> {
        let Task { sync, client, key, .. } = *task;
        let path = self.target_path(sync, key, &sync.config.target.api_version());
        let uid = match task.observed {
            Some(observed) => observed.uid.clone(),
            // We wrote it, but do not see it: it may be gone, or no longer be ours to delete.
            None => match client.get(&path).await {
                Ok(there) if plan::is_ours(&there) => meta::uid(&there).to_owned(),
                Ok(_) => return Ok(Deletion::Gone),
                Err(error) if error.is_not_found() => return Ok(Deletion::Gone),
                Err(error) => return Err(error),
            },
        };
        if sync.config.is_namespaces() {
            // Of a host that is a member too, the namespace there is the one that the federated one lives in.
            match sync.control.host.get(&format!("/api/v1/namespaces/{}", key.name)).await {
                Ok(ours) if meta::uid(&ours) == uid => return Ok(Deletion::Hosts),
                Err(error) if !error.is_not_found() => return Ok(Deletion::Unsure(error)),
                _ => {}
            }
        }
        // The options of the annotation are for the deletion of the federated object alone.
        let mut options = match task.planned {
            Some(planned) if planned.plan.deleting => planned.plan.delete_options.clone(),
            _ => json!({"apiVersion": "v1", "kind": "DeleteOptions"}),
        };
        if options["preconditions"]["uid"].is_null() {
            options["preconditions"]["uid"] = json!(uid);
        }
        match client.delete(&path, &options).await {
            Ok(answer) if answer["kind"] == "Status" => Ok(Deletion::Gone),
            Ok(_) => Ok(Deletion::Going),
            Err(error) if error.is_not_found() => Ok(Deletion::Gone),
            Err(error) => Err(error),
        }
    }
}

pub(super) enum Refused {
    /// With the state, and why.
    For(&'static str, String),
    By(Error),
}

pub(super) enum Deletion {
    Gone,
    Going,
    /// It is the host's own, and stays.
    Hosts,
    /// Whether it is the host's own cannot be told now: the host does not say.
    Unsure(Error),
}

/// Keeps the count that the member has: leaving the field out would give it up, and the member would fall to its default.
fn retain_replicas(desired: &mut Value, there: &Value) {
    if there["spec"]["replicas"].is_i64() && desired["spec"].is_object() {
        desired["spec"]["replicas"] = there["spec"]["replicas"].clone();
    }
}
