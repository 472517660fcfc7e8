//! Kinds that come and go with the objects that define them.

use std::collections::HashMap;

use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::GroupResource;
use serde_json::Value;

use super::Registry;

/// A kind that is to be served.
pub(crate) struct Kind<'a> {
    pub(crate) resource: GroupResource,
    /// All that its definition follows from. While it is the same, the kind is left as it is.
    pub(crate) made_of: Value,
    pub(crate) make: Box<dyn FnOnce() -> Result<Definition, String> + Send + 'a>,
}

/// What one controller has put into the registry, and of what it was made.
#[derive(Default)]
pub(crate) struct Served(HashMap<GroupResource, Value>);

impl Served {
    pub(crate) fn has(&self, resource: &GroupResource) -> bool {
        self.0.contains_key(resource)
    }

    /// Serves just these kinds. Returns why the others that were wanted are not served.
    pub(crate) fn serve(
        &mut self,
        registry: &Registry,
        kinds: Vec<Kind<'_>>,
    ) -> HashMap<GroupResource, String> {
        let before = std::mem::take(&mut self.0);
        let (mut definitions, mut failures) = (Vec::new(), HashMap::new());
        for Kind { resource, made_of, make } in kinds {
            if self.has(&resource) {
                failures.insert(resource, "it is defined twice; the first one counts".into());
                continue;
            }
            if before.get(&resource) != Some(&made_of) {
                match make() {
                    Ok(definition) => definitions.push(definition),
                    Err(error) => {
                        failures.insert(resource, error);
                        continue;
                    }
                }
            }
            self.0.insert(resource, made_of);
        }
        for gone in before.keys().filter(|resource| !self.has(resource)) {
            tracing::info!(resource = %gone, "no longer served: what defined it is gone; objects that are left stay in the store");
            registry.remove(&gone.group, &gone.resource);
        }
        if !definitions.is_empty() {
            registry.install(definitions);
        }
        failures
    }
}
