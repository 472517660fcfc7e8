//! Deleting objects: at once, or held by finalizers.

use std::sync::Arc;

use jiff::Timestamp;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{meta, time};
use kubefed_storage::cacher::At;
use kubefed_storage::object::Object;
use kubefed_storage::{Commit, Error, Op};
use serde_json::{Value, json};

use super::prepare;
use super::resource::{Resource, stored_form};
use crate::admission::{Admission, Operation};
use crate::query::{DeleteOptions, Propagation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete led to.
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// Finalizers hold the object, which is marked as being deleted.
    Held(Arc<Object>),
}

impl Resource {
    /// Deletes an object, or marks it where finalizers hold it. `admission` is who else has a say in it; nobody has in
    /// what the server itself deletes.
    ///
    /// # Errors
    /// 404, 409 when a precondition fails, what admission says, or what the store says.
    pub(crate) async fn delete(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        now: Timestamp,
        admission: Option<&Admission<'_>>,
    ) -> Result<Deleted, Status> {
        let admission = admission.filter(|admission| admission.concerns(Operation::Delete));
        let key = self.key(namespace, name);
        let cached =
            self.cacher.get(&key, At::Any).await.map_err(|error| self.read_error(error))?;
        let (mut live, mut fresh) = match cached {
            Some(object) => (object, false),
            None => (self.get_from_store(&key, name).await?, true),
        };
        let mut admitted = None;
        loop {
            let allowed = match (self.preconditions_hold(&live, name, options), admission) {
                (Ok(()), Some(admission)) if admitted != Some(live.revision) => {
                    Box::pin(admission.delete(namespace, &live)).await
                }
                (held, _) => held,
            };
            if let Err(error) = allowed {
                if fresh {
                    return Err(error);
                }
                let newest = self.get_from_store(&key, name).await?;
                if newest.revision == live.revision {
                    return Err(error);
                }
                (live, fresh) = (newest, true);
                continue;
            }
            admitted = Some(live.revision);
            let mut value = live.value().map_err(Status::internal)?;
            let op = match mark(
                &mut value,
                options.propagation,
                self.definition.strategy.finalizer,
                now,
            ) {
                Mark::Unchanged if fresh => return Ok(Deleted::Held(live)),
                Mark::Unchanged => {
                    (live, fresh) = (self.get_from_store(&key, name).await?, true);
                    continue;
                }
                Mark::Release => Op::Delete,
                Mark::Hold => Op::Put { value: stored_form(&mut value)?, ttl: None },
            };
            if options.dry_run {
                return Ok(if matches!(op, Op::Delete) {
                    Deleted::Gone(live)
                } else {
                    Deleted::Held(live)
                });
            }
            let held = match &op {
                Op::Put { value, .. } => Some(value.clone()),
                Op::Delete => None,
            };
            let commit =
                Commit { key: format!("{}{key}", self.prefix), expected: Some(live.revision), op };
            match (self.store.commit(commit).await, held) {
                (Ok(revision), Some(value)) => {
                    return Ok(Deleted::Held(self.written(&key, value, 0, revision)?));
                }
                (Ok(_), None) => return Ok(Deleted::Gone(live)),
                (Err(Error::Conflict { current: Some(entry) }), _) => {
                    (live, fresh) = (self.object(&entry)?, true)
                }
                (Err(Error::Conflict { current: None }), _) => {
                    return Err(Status::not_found(&self.group_resource(), name));
                }
                (Err(error), _) => return Err(self.store_error(error)),
            }
        }
    }

    fn preconditions_hold(
        &self,
        live: &Object,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != &*live.index.uid) {
            let text = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                live.index.uid
            );
            return Err(Status::conflict(&self.group_resource(), name, text));
        }
        let revision = live.revision.to_string();
        if let Some(wanted) =
            options.resource_version.as_deref().filter(|wanted| *wanted != revision)
        {
            let text = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
            );
            return Err(Status::conflict(&self.group_resource(), name, text));
        }
        Ok(())
    }
}

enum Mark {
    /// It is marked as it should be.
    Unchanged,
    /// It has to be stored with its mark.
    Hold,
    /// Nothing holds it.
    Release,
}

/// Marks an object as being deleted, with the finalizers that the propagation policy and its kind ask for.
fn mark(
    object: &mut Value,
    propagation: Option<Propagation>,
    of_kind: Option<&str>,
    now: Timestamp,
) -> Mark {
    let before: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    let marked = meta::deletion_timestamp(object).is_some();
    let mut finalizers = before.clone();
    if let Some(finalizer) =
        of_kind.filter(|of_kind| !marked && !before.iter().any(|f| f == of_kind))
    {
        finalizers.push(finalizer.into());
    }
    if let Some(propagation) = propagation {
        finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => finalizers.push(FOREGROUND.into()),
            Propagation::Orphan => finalizers.push(ORPHAN.into()),
        }
    }
    if finalizers.is_empty() && !prepare::holds_namespace(object) {
        return Mark::Release;
    }
    if marked && finalizers == before {
        return Mark::Unchanged;
    }
    let metadata = &mut object["metadata"];
    metadata["finalizers"] = json!(finalizers);
    if !marked {
        metadata["deletionTimestamp"] = json!(time::rfc3339(now));
        metadata["deletionGracePeriodSeconds"] = json!(0);
        let generation = metadata["generation"].as_i64().unwrap_or(0);
        if generation > 0 {
            metadata["generation"] = json!(generation + 1);
        }
    }
    if object["kind"] == "Namespace" && object["apiVersion"] == "v1" {
        object["status"]["phase"] = json!("Terminating");
    }
    if object["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty)
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("finalizers");
    }
    Mark::Hold
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn an_object_without_finalizers_is_released_at_once() {
        let mut object = json!({"metadata": {"name": "a"}});
        assert!(matches!(mark(&mut object, None, None, now()), Mark::Release));
    }

    #[test]
    fn the_policy_decides_about_the_finalizer() {
        for (policy, finalizer) in
            [(Propagation::Orphan, ORPHAN), (Propagation::Foreground, FOREGROUND)]
        {
            let mut object = json!({"metadata": {"name": "a", "generation": 3}});
            assert!(matches!(mark(&mut object, Some(policy), None, now()), Mark::Hold));
            assert_eq!(object["metadata"]["finalizers"], json!([finalizer]));
            assert_eq!(object["metadata"]["generation"], 4);
            assert!(matches!(mark(&mut object, Some(policy), None, now()), Mark::Unchanged));
            assert!(matches!(
                mark(&mut object, Some(Propagation::Background), None, now()),
                Mark::Release
            ));
        }
    }

    #[test]
    fn a_kind_that_cleans_up_holds_its_objects_once() {
        let mut object = json!({"metadata": {"name": "a"}});
        assert!(matches!(mark(&mut object, None, Some("x/y"), now()), Mark::Hold));
        assert_eq!(object["metadata"]["finalizers"], json!(["x/y"]));
        assert!(matches!(mark(&mut object, None, Some("x/y"), now()), Mark::Unchanged));
        object["metadata"]["finalizers"] = json!([]);
        assert!(matches!(mark(&mut object, None, Some("x/y"), now()), Mark::Release));
    }

    #[test]
    fn a_namespace_is_held_until_its_content_is_gone() {
        let mut namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}
        });
        assert!(matches!(mark(&mut namespace, None, None, now()), Mark::Hold));
        assert_eq!(namespace["status"]["phase"], "Terminating");
        assert!(namespace["metadata"].get("finalizers").is_none());
    }
}
