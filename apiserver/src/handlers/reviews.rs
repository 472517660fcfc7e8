//! The reviews: who am I, may I, is this token good.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;
use serde_json::{Value, json};

use super::{Call, decode};
use crate::audit::user_info;
use crate::authz::{Attributes, Decision};
use crate::body::Body;
use crate::negotiate::{self, Shape};
use crate::render;
use crate::request::RequestInfo;
use crate::user::UserInfo;
use crate::virtuals::Virtual;

pub(super) async fn answer(
    call: &Call<'_>,
    kind: &'static Virtual,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    if call.info.verb != "create" || !call.info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if call.media.shape != Shape::Object {
        return Err(Status::not_acceptable(format!(
            "the resource {}.{} does not support being converted to a Table",
            kind.plural, kind.group
        )));
    }
    let format = negotiate::content(call.headers)?;
    let mut review = decode::parse(&decode::bytes(body).await?, format, kind.kind)?.value;
    let api_version = format!("{}/{}", kind.group, kind.version);
    if !review.is_object()
        || review["kind"] != kind.kind
        || review["apiVersion"] != api_version.as_str()
    {
        return Err(Status::bad_request(format!("the body is not a {api_version} {}", kind.kind)));
    }
    let spec = review["spec"].clone();
    review["status"] = match kind.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(call.user)}),
        "TokenReview" => token_review(call, &spec).await,
        "SelfSubjectAccessReview" => access(call, call.user, &spec).await?,
        "SelfSubjectRulesReview" => rules(call, spec["namespace"].as_str().unwrap_or("")),
        "LocalSubjectAccessReview"
            if spec["resourceAttributes"]["namespace"] != call.info.namespace.as_str() =>
        {
            return Err(Status::bad_request(
                "spec.resourceAttributes.namespace does not match the namespace of the request",
            ));
        }
        _ => access(call, &subject(&spec), &spec).await?,
    };
    if !review["metadata"].is_object() {
        review["metadata"] = json!({"creationTimestamp": null});
    }
    Ok(render::value_response(&review, call.media, StatusCode::CREATED))
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn subject(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), texts(values)))
        .collect();
    UserInfo {
        name: spec["user"].as_str().unwrap_or("").into(),
        uid: spec["uid"].as_str().unwrap_or("").into(),
        groups: texts(&spec["groups"]),
        extra,
    }
}

async fn token_review(call: &Call<'_>, spec: &Value) -> Value {
    let audiences = texts(&spec["audiences"]);
    let user = match &call.server.tokens {
        Some(tokens) => tokens.verify(spec["token"].as_str().unwrap_or(""), &audiences).await,
        None => None,
    };
    match user {
        Some(user) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        None => json!({"authenticated": false, "error": "the token is not valid"}),
    }
}

async fn access(call: &Call<'_>, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
    let text =
        |attributes: &Value, field: &str| attributes[field].as_str().unwrap_or("").to_owned();
    let request = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (resource @ Value::Object(_), _) => RequestInfo {
            verb: text(resource, "verb"),
            is_resource: true,
            group: text(resource, "group"),
            version: text(resource, "version"),
            namespace: text(resource, "namespace"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            name: text(resource, "name"),
            path: String::new(),
        },
        (_, path @ Value::Object(_)) => RequestInfo {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..RequestInfo::default()
        },
        _ => {
            return Err(Status::bad_request(
                "exactly one of spec.resourceAttributes and spec.nonResourceAttributes must be specified",
            ));
        }
    };
    Ok(match call.server.authorizer.authorize(&Attributes::of(user, &request)).await? {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
    })
}

fn rules(call: &Call<'_>, namespace: &str) -> Value {
    let index = call.server.rbac.index();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if call.user.is_in(crate::user::MASTERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in index.rules_for(call.user, namespace) {
        let shown = json!(rule);
        if rule.non_resource_urls.is_empty() { resources.push(shown) } else { paths.push(shown) }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
