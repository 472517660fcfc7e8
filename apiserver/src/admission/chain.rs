//! What a host has to say in writes, in Kubernetes' order.

use std::sync::Arc;

use kubefed_apimachinery::status::Status;

use super::webhooks::Webhooks;
use super::{Operation, Review};
use crate::host::Namespaces;
use crate::registry::{Part, Route};

/// Webhooks, policies and quotas of a host.
pub(crate) struct Chain {
    pub(crate) webhooks: Webhooks,
}

impl Chain {
    pub(crate) fn new(host: kube::Client, namespaces: Arc<Namespaces>) -> Self {
        Chain { webhooks: Webhooks::new(host, namespaces) }
    }

    /// Whether all of them know what there is in the host; until then they refuse what concerns them.
    pub(crate) fn is_ready(&self) -> bool {
        self.webhooks.is_ready()
    }

    /// Whether any of them has a say in such writes. Each answers from a snapshot of its own, for it is asked at every
    /// write; one that does not know yet says yes.
    pub(crate) fn concerns(&self, route: &Route, part: Part, operation: Operation) -> bool {
        self.webhooks.concerns(route, part, operation)
    }

    /// Those that may change the object: mutating webhooks.
    pub(crate) async fn mutate(&self, review: &mut Review<'_>) -> Result<(), Status> {
        self.webhooks.mutate(review).await
    }

    /// Those that may only refuse: ValidatingAdmissionPolicies, then validating webhooks, then quotas, for what a quota
    /// counts is not to be refused any more.
    pub(crate) async fn validate(&self, review: &Review<'_>) -> Result<(), Status> {
        self.webhooks.validate(review).await
    }
}
