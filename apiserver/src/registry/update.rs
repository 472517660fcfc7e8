//! Creating and changing objects: the loop around the store's compare-and-swap.

use std::sync::Arc;

use jiff::Timestamp;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{apply, meta, names};
use kubefed_storage::cacher::At;
use kubefed_storage::object::Object;
use kubefed_storage::{Commit, Error, Op};
use serde_json::Value;

use super::resource::stored_form;
use super::{Route, prepare};
use crate::admission::{Admission, Operation};

/// Name attempts for `generateName`, as many as `k8s.io/apiserver` makes.
const NAME_ATTEMPTS: usize = 8;

/// How often a change is tried anew on the newest object before the client is asked to come back. Kubernetes goes on
/// until its deadline; the request's own deadline holds here too, this bound only ends a storm.
const UPDATE_ATTEMPTS: usize = 64;

/// Which part of an object a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where there is a status subresource.
    Main,
    /// The status alone.
    Status,
    /// All but the status, through the scale subresource.
    Scale,
}

impl Part {
    /// The name of the subresource in `managedFields`.
    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Scale => "scale",
        }
    }
}

/// A write on behalf of one request.
pub struct Write<'a> {
    pub route: &'a Route,
    pub part: Part,
    pub manager: &'a str,
    pub now: Timestamp,
    pub dry_run: bool,
    /// Random bytes for names, fresh at each call.
    pub random: fn() -> [u8; 16],
    /// Where warnings for the client go.
    pub warn: &'a (dyn Fn(String) + Sync),
    /// Who else has a say in it; nobody has in what the server itself writes.
    pub(crate) admission: Option<Admission<'a>>,
}

/// Who keeps `managedFields` right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// The registry compares and records, as for an update.
    Registry,
    /// Server-side apply already did.
    Done,
}

impl Write<'_> {
    /// The identity that the write is recorded under.
    pub fn manager(&self) -> apply::Manager {
        apply::Manager {
            name: self.manager.to_owned(),
            operation: apply::Operation::Update,
            api_version: self.route.version().group_version.to_string(),
            subresource: self.part.subresource().to_owned(),
            time: self.now,
        }
    }

    /// Creates `object` (in the route's version, its fields known to the schema) in `namespace`.
    ///
    /// # Errors
    /// 409 AlreadyExists, 422 with every invalid field, or what the store says.
    pub async fn create(
        &self,
        namespace: &str,
        mut object: Value,
        tracking: Tracking,
    ) -> Result<Arc<Object>, Status> {
        let resource = &self.route.resource;
        if resource.definition.terminating {
            return Err(Status {
                message: "create not allowed while custom resource definition is terminating"
                    .into(),
                ..Status::method_not_allowed()
            });
        }
        let generated = meta::name(&object).is_empty();
        let admission = self.admission(Operation::Create);
        if let Some(admission) = admission {
            prepare::receive(self, namespace, &mut object, tracking)?;
            Box::pin(admission.mutate(namespace, &mut object, None)).await?;
        }
        // What admission set is nobody's: it is not recorded as the client's.
        let tracking = if admission.is_some() { Tracking::Done } else { tracking };
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Only a generated name is tried again.
            let mut candidate =
                if generated { object.clone() } else { std::mem::take(&mut object) };
            if generated && let Some(base) = meta::generate_name(&candidate).map(str::to_owned) {
                meta::set_name(&mut candidate, &names::generate_name(&base, &(self.random)()));
            }
            prepare::create(self, namespace, &mut candidate, tracking)?;
            for warning in (resource.definition.strategy.warnings)(&candidate) {
                (self.warn)(warning);
            }
            if let Some(admission) = admission {
                Box::pin(admission.validate(namespace, &candidate, None)).await?;
                // Under another name it is still one object more.
                if attempt == 1 {
                    Box::pin(admission.charge(namespace, meta::name(&candidate))).await?;
                }
            }
            let name = meta::name(&candidate).to_owned();
            let key = resource.key(namespace, &name);
            let value = stored_form(&mut candidate)?;
            if self.dry_run {
                let exists = resource
                    .cacher
                    .get(&key, At::Latest)
                    .await
                    .map_err(|e| resource.read_error(e))?;
                if exists.is_some() {
                    return Err(Status::already_exists(&self.route.group_resource(), &name));
                }
                return resource.written(&key, value, 0, 0);
            }
            let commit = Commit {
                key: format!("{}{key}", resource.prefix),
                expected: Some(0),
                op: Op::Put {
                    value: value.clone(),
                    ttl: prepare::time_to_live(&resource.definition),
                },
            };
            match resource.store.commit(commit).await {
                Ok(revision) => return resource.written(&key, value, revision, revision),
                Err(Error::Conflict { .. }) if generated && attempt < NAME_ATTEMPTS => {}
                Err(Error::Conflict { current }) => {
                    let terminating = current
                        .and_then(|entry| resource.object(&entry).ok())
                        .is_some_and(|object| object.index.deletion_timestamp.is_some());
                    return Err(prepare::exists(
                        &self.route.group_resource(),
                        &name,
                        terminating,
                        generated,
                    ));
                }
                Err(error) => return Err(resource.store_error(error)),
            }
        }
    }

    /// Changes an object: `build` makes the new one of the live one, both in the route's version. It runs again on a
    /// newer object when another writer was faster.
    ///
    /// An object that `build` gives a `resourceVersion` or `uid` must still have them. The write that takes the last
    /// finalizer off an object being deleted deletes it.
    ///
    /// # Errors
    /// 404, 409 Conflict, 422 with every invalid field, what `build` says, or what the store says.
    pub async fn update(
        &self,
        namespace: &str,
        name: &str,
        tracking: Tracking,
        build: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Arc<Object>, Status> {
        let resource = &self.route.resource;
        let key = resource.key(namespace, name);
        // The cached object may be a little old. That is fine when the write goes through (the store compares), but an
        // error that an old object leads to must be checked against the newest one before a client sees it.
        let cached =
            resource.cacher.get(&key, At::Any).await.map_err(|error| resource.read_error(error))?;
        let (mut live, mut fresh) = match cached {
            Some(object) => (object, false),
            None => (self.newest(&key, name).await?, true),
        };
        for _ in 0..UPDATE_ATTEMPTS {
            let step = self.step(namespace, &live, tracking, &build).await;
            let step = match step {
                Err(refused) if !fresh => {
                    let newest = self.newest(&key, name).await?;
                    if newest.revision == live.revision {
                        return Err(refused);
                    }
                    (live, fresh) = (newest, true);
                    continue;
                }
                step => step?,
            };
            let (op, value) = match step {
                Step::Nothing if fresh => return Ok(live),
                Step::Nothing => {
                    let newest = self.newest(&key, name).await?;
                    if newest.revision == live.revision {
                        return Ok(live);
                    }
                    (live, fresh) = (newest, true);
                    continue;
                }
                Step::Put(value) => (
                    Op::Put {
                        value: value.clone(),
                        ttl: prepare::time_to_live(&resource.definition),
                    },
                    value,
                ),
                Step::Delete(value) => (Op::Delete, value),
            };
            if self.dry_run {
                return resource.written(&key, value, 0, live.revision);
            }
            let commit = Commit {
                key: format!("{}{key}", resource.prefix),
                expected: Some(live.revision),
                op,
            };
            match resource.store.commit(commit).await {
                Ok(revision) => return resource.written(&key, value, 0, revision),
                Err(Error::Conflict { current: Some(entry) }) => {
                    (live, fresh) = (resource.object(&entry)?, true)
                }
                Err(Error::Conflict { current: None }) => {
                    return Err(Status::not_found(&self.route.group_resource(), name));
                }
                Err(error) => return Err(resource.store_error(error)),
            }
        }
        Err(Status::modified(&self.route.group_resource(), name))
    }

    /// Who has a say in such a write, if anybody has.
    fn admission(&self, operation: Operation) -> Option<&Admission<'_>> {
        self.admission.as_ref().filter(|admission| admission.concerns(operation))
    }

    async fn newest(&self, key: &str, name: &str) -> Result<Arc<Object>, Status> {
        self.route.resource.get_from_store(key, name).await
    }

    /// What to write so that `live` becomes what `build` makes of it.
    async fn step(
        &self,
        namespace: &str,
        live: &Object,
        tracking: Tracking,
        build: &impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Step, Status> {
        let mut live_value = live.value().map_err(Status::internal)?;
        let storage = self.route.resource.definition.storage.to_string();
        // An object of an earlier stored version is written in the present one, whatever else changes.
        let migrates = live_value["apiVersion"] != storage.as_str();
        meta::set_api_version(&mut live_value, &self.route.version().group_version.to_string());
        let mut new = build(&live_value)?;
        if let Some(admission) = self.admission(Operation::Update) {
            prepare::settle(self, &live_value, &mut new, tracking)?;
            Box::pin(admission.mutate(namespace, &mut new, Some(&live_value))).await?;
            // What admission set is nobody's: it is not recorded as the client's.
            prepare::update(self, &live_value, &mut new, Tracking::Done)?;
            Box::pin(admission.validate(namespace, &new, Some(&live_value))).await?;
        } else {
            prepare::update(self, &live_value, &mut new, tracking)?;
        }
        meta::set_api_version(&mut live_value, &storage);
        meta::set_api_version(&mut new, &storage);
        if prepare::is_released(&new) {
            return Ok(Step::Delete(stored_form(&mut new)?));
        }
        if !migrates && apply::equal_but_for_times(&live_value, &new) {
            return Ok(Step::Nothing);
        }
        for warning in (self.route.resource.definition.strategy.warnings)(&new) {
            (self.warn)(warning);
        }
        Ok(Step::Put(stored_form(&mut new)?))
    }
}

enum Step {
    Nothing,
    Put(bytes::Bytes),
    Delete(bytes::Bytes),
}
