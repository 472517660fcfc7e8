//! What a host has to say in writes, in Kubernetes' order.

use kubefed_apimachinery::status::Status;

use super::{Operation, Review};
use crate::registry::{Part, Route};

/// Webhooks, policies and quotas of a host.
#[derive(Default)]
pub(crate) struct Chain {}

impl Chain {
    /// Whether any of them has a say in such writes. Each answers from a snapshot of its own, for it is asked at every
    /// write; one that does not know yet says yes.
    pub(crate) fn concerns(&self, _route: &Route, _part: Part, _operation: Operation) -> bool {
        false
    }

    /// Those that may change the object: mutating webhooks.
    pub(crate) async fn mutate(&self, _review: &mut Review<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Those that may only refuse: ValidatingAdmissionPolicies, then validating webhooks, then quotas, for what a quota
    /// counts is not to be refused any more.
    pub(crate) async fn validate(&self, _review: &Review<'_>) -> Result<(), Status> {
        Ok(())
    }
}
