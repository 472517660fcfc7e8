//! What a host has to say in writes, in Kubernetes' order.

use std::sync::Arc;

use kubefed_apimachinery::status::Status;

use super::policies::Policies;
use super::webhooks::Webhooks;
use super::{Operation, Review};
use crate::host::{Namespaces, Quotas};
use crate::registry::{Part, Route};

/// Webhooks, policies and quotas of a host.
pub(crate) struct Chain {
    pub(crate) policies: Policies,
    pub(crate) webhooks: Webhooks,
    pub(crate) quotas: Quotas,
}

impl Chain {
    pub(crate) fn new(host: kube::Client, namespaces: Arc<Namespaces>) -> Self {
        Chain {
            policies: Policies::new(host.clone(), Arc::clone(&namespaces)),
            webhooks: Webhooks::new(host.clone(), namespaces),
            quotas: Quotas::new(host),
        }
    }

    /// Whether all of them know what there is in the host; until then they refuse what concerns them.
    pub(crate) fn is_ready(&self) -> bool {
        self.policies.is_ready() && self.webhooks.is_ready() && self.quotas.is_ready()
    }

    /// Whether any of them has a say in such writes. Each answers from a snapshot of its own, for it is asked at every
    /// write; one that does not know yet says yes.
    pub(crate) fn concerns(&self, route: &Route, part: Part, operation: Operation) -> bool {
        self.policies.concerns(route, part, operation)
            || self.webhooks.concerns(route, part, operation)
            || self.quotas.concerns(route, part, operation)
    }

    /// Those that may change the object: mutating webhooks.
    pub(crate) async fn mutate(&self, review: &mut Review<'_>) -> Result<(), Status> {
        self.webhooks.mutate(review).await
    }

    /// Those that may only refuse: ValidatingAdmissionPolicies, then validating webhooks.
    pub(crate) async fn validate(&self, review: &Review<'_>) -> Result<(), Status> {
        self.policies.validate(review).await?;
        self.webhooks.validate(review).await
    }

    /// Quotas, when all others have had their say: what a quota counts is not to be refused any more.
    pub(crate) async fn charge(&self, review: &Review<'_>) -> Result<(), Status> {
        self.quotas.charge(review).await
    }
}
