//! LIST: a snapshot of the cache, filtered, cut into pages.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Response;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{fields, labels};
use kubefed_storage::cacher::{self, At, ListQuery};
use kubefed_storage::object::Object;
use serde::{Deserialize, Serialize};

use super::Call;
use super::shape::{self, ListMeta};
use crate::body::Body;
use crate::query::{ListOptions, VersionMatch};
use crate::registry::Route;

pub(super) async fn list(call: &Call<'_>, route: &Route) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let (items, meta) = select(call, route, &options).await?;
    shape::list(call, route, items, &meta)
}

/// The objects that the options ask for, and what the list says of itself.
pub(super) async fn select(
    call: &Call<'_>,
    route: &Route,
    options: &ListOptions,
) -> Result<(Vec<Arc<Object>>, ListMeta), Status> {
    let filter = Filter::new(options, route)?;
    let prefix = filter.prefix(call.namespace(route));
    let continued = options.continue_token.as_deref().map(Continue::decode).transpose()?;
    let at = match (&continued, options.resource_version, options.version_match) {
        (Some(Continue { rv: -1, .. }), ..) | (None, None, _) => At::Latest,
        (Some(continued), ..) => At::Exact(u64::try_from(continued.rv).unwrap_or(0)),
        (None, Some(0), _) => At::Any,
        (None, Some(rv), VersionMatch::Exact) => At::Exact(rv),
        (None, Some(rv), VersionMatch::Unset) if options.limit > 0 => At::Exact(rv),
        (None, Some(rv), _) => At::NotOlderThan(rv),
    };
    let start = continued.as_ref().map(|continued| continued.start.clone());
    if start.as_ref().is_some_and(|start| !start.starts_with(&prefix)) {
        return Err(Status::bad_request(
            "invalid continue token: continue key is not valid: it belongs to another list",
        ));
    }
    let query = ListQuery { prefix, start: start.clone(), at };
    let snapshot = match route.resource.cacher.list(query).await {
        Ok(snapshot) => snapshot,
        Err(cacher::Error::Expired { .. }) if start.is_some() => {
            return Err(expired_continue(start.unwrap_or_default()));
        }
        Err(error) => return Err(shape::in_group(route.resource.read_error(error), route)),
    };

    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut items = Vec::new();
    let mut rest = snapshot.iter();
    let mut more = false;
    for object in rest.by_ref() {
        if !filter.matches(object) {
            continue;
        }
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(Arc::clone(object));
    }
    let continue_token = match items.last() {
        Some(last) if more => Continue::after(snapshot.revision(), &last.key).encode(),
        _ => String::new(),
    };
    let remaining = (more && filter.is_everything()).then(|| rest.count() as u64 + 1);
    Ok((items, ListMeta { revision: snapshot.revision(), continue_token, remaining }))
}

/// 410 with a token that goes on at the newest state, as Kubernetes offers it.
fn expired_continue(start: String) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = Some(Continue { v: Continue::VERSION.into(), rv: -1, start }.encode());
    status
}

/// Where a list goes on. The form is Kubernetes' own; some clients look inside.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The revision of the first page; -1: go on at the newest.
    rv: i64,
    /// The first key of the page: the last one of the page before, and a NUL.
    start: String,
}

impl Continue {
    const VERSION: &str = "meta.k8s.io/v1";

    fn after(revision: u64, key: &str) -> Self {
        let rv = i64::try_from(revision).unwrap_or(i64::MAX);
        Continue { v: Self::VERSION.into(), rv, start: format!("{key}\0") }
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid("it is not base64"))?;
        let decoded: Continue =
            serde_json::from_slice(&bytes).map_err(|_| invalid("it is no token of a list"))?;
        if decoded.v != Self::VERSION {
            return Err(invalid(&format!(
                "server does not recognize this encoded version {:?}",
                decoded.v
            )));
        }
        if decoded.rv == 0 || decoded.rv < -1 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if decoded.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if decoded.start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(&decoded.start));
        }
        Ok(decoded)
    }
}

/// The selectors of a list or watch.
#[derive(Clone)]
pub(super) struct Filter {
    labels: labels::Selector,
    fields: fields::Selector,
    /// The only name that is wanted; empty: any.
    name: String,
}

impl Filter {
    /// # Errors
    /// 400 for a field that cannot be selected by.
    pub(super) fn new(options: &ListOptions, route: &Route) -> Result<Self, Status> {
        let definition = &route.resource.definition;
        let selectable = &definition.selectable_fields;
        for requirement in options.fields.requirements() {
            let field = requirement.field.as_str();
            if !matches!(field, "metadata.name" | "metadata.namespace")
                && !selectable.iter().any(|f| f == field)
            {
                // Kubernetes' own kinds without fields of their own say it in other words.
                return Err(Status::bad_request(
                    if definition.strategic_patch && selectable.is_empty() {
                        format!(
                            r#"{field:?} is not a known field selector: only "metadata.name", "metadata.namespace""#
                        )
                    } else {
                        format!("field label not supported: {field}")
                    },
                ));
            }
        }
        let (labels, fields) = (options.labels.clone(), options.fields.clone());
        Ok(Filter { labels, fields, name: String::new() })
    }

    /// The same, and of this name only unless it is empty.
    pub(super) fn of_name(self, name: &str) -> Self {
        Filter { name: name.to_owned(), ..self }
    }

    /// The narrowest range of keys that holds all that can match.
    pub(super) fn prefix(&self, namespace: &str) -> String {
        let namespace = if namespace.is_empty() {
            self.fields.exact("metadata.namespace").unwrap_or("")
        } else {
            namespace
        };
        if namespace.is_empty() { String::new() } else { format!("{namespace}/") }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.name.is_empty() && self.labels.is_everything() && self.fields.requirements().is_empty()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        (self.name.is_empty() || *object.index.name == *self.name)
            && self.labels.matches(|key| object.index.label(key))
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(&object.index.name),
                "metadata.namespace" => Some(&object.index.namespace),
                field => object.index.field(field),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_comes_back_as_it_was() {
        let token = Continue::after(42, "ns/name").encode();
        let decoded = Continue::decode(&token).unwrap();
        assert_eq!((decoded.rv, decoded.start.as_str()), (42, "ns/name\0"));
    }

    #[test]
    fn a_token_that_leaves_its_list_is_refused() {
        for start in ["", "../secrets/a", "a//b", "./a"] {
            let token =
                Continue { v: Continue::VERSION.into(), rv: 5, start: start.into() }.encode();
            assert_eq!(
                Continue::decode(&token).err().map(|status| status.code),
                Some(400),
                "{start:?}"
            );
        }
        assert!(Continue::decode("!!!").is_err());
    }
}
