//! The `matchConditions` of a webhook.

use super::hook::Hook;
use crate::admission::Review;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::status::Status;

/// Whether every condition of `hook` holds.
///
/// # Errors
/// 403 if that can't be told and the webhook may not fail.
pub(super) async fn hold(
    hook: &Hook,
    review: &Review<'_>,
    _version: &GroupVersion,
) -> Result<bool, Status> {
    match hook.conditions.first() {
        None => Ok(true),
        Some(_) if hook.may_fail => Ok(false),
        Some((name, _)) => {
            Err(review.forbidden(format!("match condition {name:?} cannot be evaluated")))
        }
    }
}
