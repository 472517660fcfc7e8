//! What a host has of one kind, once that is known.

use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::status::Status;
use tokio::sync::watch;

use super::Review;

/// As Kubernetes: how long a write waits for a server that has just started to know who has a say in it.
const START: Duration = Duration::from_secs(10);

/// All of a kind, in the order in which they have their say; nothing until the host was asked.
pub(crate) struct Known<T>(watch::Sender<Option<Arc<Vec<T>>>>);

impl<T> Known<T> {
    pub(super) fn new() -> Self {
        Known(watch::Sender::new(None))
    }

    /// Takes these in the place of those that were known.
    pub(crate) fn publish(&self, all: Vec<T>) {
        self.0.send_replace(Some(Arc::new(all)));
    }

    /// Whether the host was asked.
    pub(super) fn is_ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Whether any of them is like this, which has to be assumed until they are known.
    pub(super) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        self.0.borrow().as_ref().is_none_or(|all| all.iter().any(is))
    }

    /// Those who are to have their say.
    ///
    /// # Errors
    /// 403 if they do not become known in time.
    pub(super) async fn get(&self, review: &Review<'_>) -> Result<Arc<Vec<T>>, Status> {
        let mut known = self.0.subscribe();
        let known = tokio::time::timeout(START, known.wait_for(Option::is_some)).await;
        let all = known.ok().and_then(Result::ok).and_then(|known| known.clone());
        all.ok_or_else(|| review.forbidden("not yet ready to handle request"))
    }
}
