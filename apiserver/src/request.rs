//! What a request's path and method say (`apiserver/pkg/endpoints/request/requestinfo.go`).

use http::Method;

use crate::query::Query;

/// A request, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the lower-case method for
    /// what is no resource.
    pub verb: String,
    pub path: String,
    pub is_resource: bool,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
}

impl RequestInfo {
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let other = RequestInfo {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            ..RequestInfo::default()
        };
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return other,
        };
        let (watched, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            // The parts of a namespace itself, not something in it.
            ["namespaces", name] => (*name, rest),
            ["namespaces", name, "status" | "finalize"] => (*name, rest),
            ["namespaces", name, rest @ ..] => (*name, rest),
            rest => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [] => return other,
            [resource] => (*resource, "", String::new()),
            [resource, name] => (*resource, *name, String::new()),
            [resource, name, subresource @ ..] => (*resource, *name, subresource.join("/")),
        };
        let verb = match *method {
            Method::GET | Method::HEAD if watched => "watch",
            Method::GET | Method::HEAD if !name.is_empty() => "get",
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        RequestInfo {
            verb: verb.into(),
            is_resource: true,
            group: group.into(),
            version: version.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            subresource,
            name: name.into(),
            ..other
        }
    }

    /// Whether the request lasts as long as the client likes.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
    }

    /// Whether the request changes something.
    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (method, path, query, wanted) in [
            (Method::GET, "/api/v1/namespaces", "", "list  namespaces   "),
            (Method::GET, "/api/v1/namespaces/a", "", "get  namespaces a a "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "", "update  namespaces a a finalize"),
            (Method::GET, "/api/v1/namespaces/a/secrets", "watch", "watch  secrets a  "),
            (Method::GET, "/api/v1/watch/namespaces/a/secrets", "", "watch  secrets a  "),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "create apps deployments a  ",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "",
                "patch apps deployments a b scale",
            ),
            (Method::DELETE, "/apis/g.io/v1/things/b%2Fc", "", "delete g.io things  b/c "),
            (Method::DELETE, "/apis/g.io/v1/things", "", "deletecollection g.io things   "),
        ] {
            let info = RequestInfo::new(&method, path, &Query::parse(Some(query)));
            let found = format!(
                "{} {} {} {} {} {}",
                info.verb, info.group, info.resource, info.namespace, info.name, info.subresource
            );
            assert_eq!(found, wanted, "{path}");
        }
        for path in ["/", "/healthz", "/api", "/apis/apps/v1", "/openapi/v3/apis/apps/v1"] {
            assert!(!RequestInfo::new(&Method::GET, path, &Query::default()).is_resource, "{path}");
        }
    }
}
