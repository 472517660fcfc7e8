//! What is asked of a member to write an object there and to delete it.

use kubefed_api::{MANAGED_LABEL, status};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use super::super::plan;
use super::super::{Learned, Planned, Sync};
use super::{Lane, Task, handover, outcome};
use crate::cache::Key;
use crate::client::{Client, Error};

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
        if let Some(observed) = task.observed {
            if planned.plan.retains || observed.is_kubefeds {
                let there = client.get(&target).await.map_err(Refused::By)?;
                desired = self.retaining(sync, planned, &there)?;
                take_over(client, &target, &there).await.map_err(Refused::By)?;
            }
            return client.apply(&target, &desired, true).await.map_err(Refused::By);
        }
        let adopts = sync.settings.adopts;
        // What is retained has to be known before anything is written.
        if adopts && !planned.plan.retains {
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
                    if !adopts
                        && !self
                            .is_hosts(sync, key, meta::uid(&there))
                            .await
                            .map_err(Refused::By)?
                    {
                        let why = "the object was there before, and adoption is disabled";
                        return Err(Refused::For(status::ALREADY_EXISTS, why.into()));
                    }
                    let text = format!(
                        "the object was there before in cluster {:?} and is taken over",
                        self.member.name
                    );
                    self.tell(task, "AdoptedInCluster", &text);
                }
                if planned.plan.retains {
                    desired = self.retaining(sync, planned, &there)?;
                }
                take_over(client, &target, &there).await.map_err(Refused::By)?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(Refused::By(error)),
        }
        client.apply(&target, &desired, true).await.map_err(Refused::By)
    }

    fn retaining(&self, sync: &Sync, planned: &Planned, there: &Value) -> Result<Value, Refused> {
        let desired = self.desired(sync, planned, Some(there));
        desired.map_err(|why| Refused::For(status::APPLY_OVERRIDES_FAILED, why))
    }

    /// Whether a namespace of a member is the host's own: then the host is a member too, and this is the namespace that
    /// the federated one lives in.
    async fn is_hosts(&self, sync: &Sync, key: &Key, uid: &str) -> Result<bool, Error> {
        if !sync.config.is_namespaces() {
            return Ok(false);
        }
        match sync.control.host.get(&format!("/api/v1/namespaces/{}", key.name)).await {
            Ok(ours) => Ok(meta::uid(&ours) == uid),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until a namespace has gone, but not for the host's own: that one waits for us.
    pub(super) async fn wait_for_namespace(&self, task: &Task<'_>) -> Result<(), ()> {
        let Task { sync, key, planned, observed, .. } = *task;
        let uid = observed.map_or("", |observed| observed.uid.as_str());
        let is_hosts = self.is_hosts(sync, key, uid).await;
        let (outcome, learned) = match is_hosts {
            Ok(true) => (None, Learned::IsGone),
            _ => (Some(outcome(status::WAITING_FOR_REMOVAL, "")), Learned::Nothing),
        };
        sync.done(key, &self.member.name, planned, outcome, learned);
        is_hosts.map(drop).map_err(drop)
    }

    /// Deletes the object if it is ours still.
    pub(super) async fn delete_ours(
        &self,
        task: &Task<'_>,
        mut options: Value,
    ) -> Result<Deletion, Error> {
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
        match self.is_hosts(sync, key, &uid).await {
            Ok(true) => return Ok(Deletion::Hosts),
            Ok(false) => {}
            Err(error) => return Ok(Deletion::Unsure(error)),
        }
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

/// Makes ours what KubeFed has set in an object.
async fn take_over(client: &Client, target: &str, there: &Value) -> Result<(), Error> {
    let Some(fields) = handover::handed_over(&there["metadata"]["managedFields"]) else {
        return Ok(());
    };
    let patch = json!({"metadata": {
        "managedFields": fields, "resourceVersion": meta::resource_version(there),
    }});
    client.merge(target, &patch).await.map(drop)
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
