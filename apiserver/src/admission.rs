//! Who has a say in a write beside the kind itself.
//!
//! The order is that of Kubernetes: [`lifecycle`] (and [`grants`], in a server that stands alone) where a request is
//! handled; then, in the loop around the store's compare-and-swap, what may change the object, the kind's own defaults
//! and validation, and what may only refuse it. The last two are the host's, see [`Chain`]; they see the very object
//! that the commit compares with, again for each newer one that a race brings. What the server itself writes asks
//! nobody.

use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::object::Object;
use serde_json::{Value, json};

use crate::audit::{Trail, user_info};
use crate::filters::Warnings;
use crate::metrics::Metrics;
use crate::query::{DeleteOptions, Query, options_object};
use crate::registry::{Part, Route, scale};
use crate::user::UserInfo;

mod cel;
mod chain;
pub(crate) mod grants;
mod known;
pub(crate) mod lifecycle;
mod matching;
pub(crate) mod policies;
pub(crate) mod quota;
pub(crate) mod webhooks;

pub(crate) use chain::Chain;
use matching::Asked;

/// What is to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// As Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }
}

/// Where admission leaves word of a request.
#[derive(Clone, Copy)]
pub(crate) struct Notes<'a> {
    pub(crate) warnings: &'a Warnings,
    pub(crate) trail: Option<&'a Trail>,
    pub(crate) metrics: &'a Metrics,
}

impl Notes<'_> {
    /// Something that the client is told.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.add(text);
    }

    /// Something that is recorded with the request.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(trail) = self.trail {
            trail.annotate(key, value);
        }
    }
}

/// The options of a request, as an object once somebody asks.
#[derive(Clone, Copy)]
pub(crate) enum Options<'a> {
    Write(&'a Query),
    Delete(&'a DeleteOptions),
}

/// One write of one object that is to be admitted.
///
/// `object` and `old_object` are in the version that the request names; through `scale` they are the object's Scale.
pub(crate) struct Review<'a> {
    pub(crate) operation: Operation,
    pub(crate) user: &'a UserInfo,
    pub(crate) route: &'a Route,
    pub(crate) part: Part,
    /// Empty where the kind is in none.
    pub(crate) namespace: &'a str,
    /// Empty for an object whose name is still to be generated.
    pub(crate) name: String,
    /// `None` in a delete.
    pub(crate) object: Option<Value>,
    /// `None` in a create.
    pub(crate) old_object: Option<Value>,
    /// Kubernetes' `CreateOptions`, `UpdateOptions` (of patches too) or `DeleteOptions`.
    pub(crate) options: Value,
    pub(crate) dry_run: bool,
    pub(crate) notes: Notes<'a>,
}

impl Review<'_> {
    /// The part of the object that is written, by its name in paths; empty for the object itself.
    pub(crate) fn subresource(&self) -> &'static str {
        self.part.subresource()
    }

    /// What rules ask of it.
    fn asked(&self) -> Asked<'_> {
        Asked::new(self.route, self.part, self.operation, &self.name)
    }

    /// The `request` of an AdmissionReview, in a version of the kind; without its uid and the objects.
    pub(crate) fn request(&self, version: &GroupVersion) -> Value {
        let (asked, definition) = (self.route.version(), &self.route.resource.definition);
        let kind = |version: &GroupVersion| match self.part {
            Part::Scale => json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
            _ => {
                json!({"group": version.group, "version": version.version, "kind": definition.kind})
            }
        };
        let resource = |version: &GroupVersion| json!({"group": version.group, "version": version.version, "resource": definition.plural});
        let mut request = json!({
            "kind": kind(version), "resource": resource(version),
            "requestKind": kind(&asked.group_version), "requestResource": resource(&asked.group_version),
            "operation": self.operation.as_str(), "userInfo": user_info(self.user),
            "dryRun": self.dry_run, "options": self.options,
        });
        let texts = [
            ("name", self.name.as_str()),
            ("namespace", self.namespace),
            ("subResource", self.subresource()),
            ("requestSubResource", self.subresource()),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            request[field] = json!(text);
        }
        request
    }

    /// The object, in a version of the kind.
    pub(crate) fn object_in(&self, version: &GroupVersion) -> Option<Value> {
        self.object.as_ref().map(|object| self.converted(object, version))
    }

    /// The object as it was, in a version of the kind.
    pub(crate) fn old_object_in(&self, version: &GroupVersion) -> Option<Value> {
        self.old_object.as_ref().map(|object| self.converted(object, version))
    }

    /// Takes an object in any version of the kind in the place of this one.
    fn set_object(&mut self, object: Value) {
        let mut object = self.converted(&object, &self.route.version().group_version);
        if self.part != Part::Scale {
            self.route.version().schema.prune(&mut object);
            self.route.version().schema.default(&mut object);
        }
        self.object = Some(object);
    }

    /// The versions of a kind differ in `apiVersion` alone.
    fn converted(&self, object: &Value, version: &GroupVersion) -> Value {
        let mut object = object.clone();
        if self.part != Part::Scale {
            meta::set_api_version(&mut object, &version.to_string());
        }
        object
    }

    /// 403 for this write.
    pub(crate) fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.route.group_resource(), &self.name, why)
    }
}

/// One request whose writes others have a say in: the [`Review`] of each is made of it.
pub(crate) struct Admission<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) user: &'a UserInfo,
    pub(crate) route: &'a Route,
    pub(crate) part: Part,
    pub(crate) options: Options<'a>,
    pub(crate) dry_run: bool,
    pub(crate) notes: Notes<'a>,
}

impl Admission<'_> {
    /// Whether anybody has a say in such writes. Costs nothing; where it is false nothing else needs to be asked.
    pub(crate) fn concerns(&self, operation: Operation) -> bool {
        self.chain.concerns(self.route, self.part, operation)
    }

    /// Lets those have their say who may change `new`: a new object, or the one that takes the place of `live`.
    ///
    /// # Errors
    /// What they say, or that they can't be asked.
    pub(crate) async fn mutate(
        &self,
        namespace: &str,
        new: &mut Value,
        live: Option<&Value>,
    ) -> Result<(), Status> {
        // Whose the fields are, and at which version, is the server's own bookkeeping.
        let kept = ["managedFields", "resourceVersion"];
        let kept = kept.map(|field| (field, new["metadata"].get(field).cloned()));
        let mut review = self.review(namespace, new, live);
        self.chain.mutate(&mut review).await?;
        let changed = review.object.take().unwrap_or_default();
        if let (Part::Scale, Some(paths)) =
            (self.part, &self.route.resource.definition.subresources.scale)
        {
            scale::set_replicas(new, paths, changed["spec"]["replicas"].as_i64().unwrap_or(0));
            return Ok(());
        }
        *new = changed;
        if let Some(metadata) = new["metadata"].as_object_mut() {
            for (field, value) in kept {
                match value {
                    Some(value) => metadata.insert(field.into(), value),
                    None => metadata.remove(field),
                };
            }
        }
        Ok(())
    }

    /// Lets those have their say who may only refuse.
    ///
    /// # Errors
    /// What they say, or that they can't be asked.
    pub(crate) async fn validate(
        &self,
        namespace: &str,
        new: &Value,
        live: Option<&Value>,
    ) -> Result<(), Status> {
        let review = self.review(namespace, new, live);
        self.chain.validate(&review).await
    }

    /// Charges a new object to the quotas of its namespace: once, and after all others have had their say.
    ///
    /// # Errors
    /// 403 if there may be no more, or 500 if the host can't be asked.
    pub(crate) async fn charge(&self, namespace: &str, name: &str) -> Result<(), Status> {
        let review = Review { name: name.to_owned(), ..self.empty(Operation::Create, namespace) };
        self.chain.charge(&review).await
    }

    /// Lets all have their say in that an object goes.
    ///
    /// # Errors
    /// What they say, or that they can't be asked.
    pub(crate) async fn delete(&self, namespace: &str, live: &Object) -> Result<(), Status> {
        let old = live.value().map_err(Status::internal)?;
        let mut review = Review {
            name: live.index.name.to_string(),
            ..self.empty(Operation::Delete, namespace)
        };
        review.old_object = Some(self.shown(&old));
        self.chain.mutate(&mut review).await?;
        self.chain.validate(&review).await
    }

    fn review<'a>(&'a self, namespace: &'a str, new: &Value, live: Option<&Value>) -> Review<'a> {
        let operation = if live.is_some() { Operation::Update } else { Operation::Create };
        Review {
            name: meta::name(new).to_owned(),
            object: Some(self.shown(new)),
            old_object: live.map(|live| self.shown(live)),
            ..self.empty(operation, namespace)
        }
    }

    fn empty<'a>(&'a self, operation: Operation, namespace: &'a str) -> Review<'a> {
        let options = match self.options {
            Options::Delete(options) => options.to_value(),
            Options::Write(query) if operation == Operation::Create => {
                options_object(query, "CreateOptions")
            }
            Options::Write(query) => options_object(query, "UpdateOptions"),
        };
        Review {
            operation,
            user: self.user,
            route: self.route,
            part: self.part,
            namespace,
            name: String::new(),
            object: None,
            old_object: None,
            options,
            dry_run: self.dry_run,
            notes: self.notes,
        }
    }

    /// An object as this request sees it.
    fn shown(&self, object: &Value) -> Value {
        match (self.part, &self.route.resource.definition.subresources.scale) {
            (Part::Scale, Some(paths)) => scale::of(object, paths),
            _ => {
                let mut shown = object.clone();
                meta::set_api_version(&mut shown, &self.route.version().group_version.to_string());
                shown
            }
        }
    }
}
