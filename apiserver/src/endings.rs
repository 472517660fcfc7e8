//! Ends what is being deleted: step by step, one task for each name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, ListQuery};
use kubefed_storage::object::Object;
use parking_lot::Mutex;

use crate::query::DeleteOptions;
use crate::registry::Resource;
use crate::server::Server;

/// How long to wait before what finalizers still hold is looked at again. Grows from the first to the last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// The names that are in work.
#[derive(Clone, Default)]
pub(crate) struct Endings(Arc<Mutex<HashSet<String>>>);

impl Endings {
    /// Repeats `step` until it says that all is done, or the object is gone; if that is not under way already.
    pub(crate) fn begin<F>(
        &self,
        server: &Arc<Server>,
        name: &str,
        step: impl Fn(Arc<Server>, String) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<bool, Status>> + Send,
    {
        if !self.0.lock().insert(name.to_owned()) {
            return;
        }
        let (endings, server, name) = (self.clone(), Arc::clone(server), name.to_owned());
        server.tracker.clone().spawn(async move {
            let mut pause = FIRST_LOOK;
            loop {
                match step(Arc::clone(&server), name.clone()).await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(status) if status.is_not_found() => break,
                    Err(status) => tracing::warn!(name, %status, "it cannot be ended yet"),
                }
                tokio::select! {
                    () = server.token.cancelled() => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_LOOK),
                }
            }
            endings.0.lock().remove(&name);
        });
    }
}

/// Deletes every object of one kind whose key begins with `prefix`; what finalizers hold is returned.
pub(crate) async fn empty(
    server: &Server,
    resource: &Resource,
    prefix: &str,
) -> Result<Vec<Arc<Object>>, Status> {
    let query = || ListQuery { prefix: prefix.to_owned(), start: None, at: At::Latest };
    let content =
        resource.cacher.list(query()).await.map_err(|error| resource.read_error(error))?;
    let mut any = false;
    for object in content.iter() {
        any = true;
        if object.index.deletion_timestamp.is_some() {
            continue;
        }
        let (index, options) = (&object.index, DeleteOptions::default());
        match resource.delete(&index.namespace, &index.name, &options, (server.clock)(), None).await
        {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    if !any {
        return Ok(Vec::new());
    }
    let left = resource.cacher.list(query()).await.map_err(|error| resource.read_error(error))?;
    Ok(left.iter().cloned().collect())
}
