//! `Impersonate-*`: acting as somebody else, for those who may.

use http::HeaderMap;
use kubefed_apimachinery::status::Status;

use crate::authz::{Attributes, Authorizer, Decision};
use crate::request::RequestInfo;
use crate::user::UserInfo;

const PREFIX: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";

/// The user that the request is to be seen as. Takes the headers off.
pub(super) async fn apply(
    authorizer: &dyn Authorizer,
    user: UserInfo,
    headers: &mut HeaderMap,
) -> Result<UserInfo, Status> {
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    if names.is_empty() {
        return Ok(user);
    }
    let text = |value: &http::HeaderValue| {
        value
            .to_str()
            .map(str::to_owned)
            .map_err(|_| Status::bad_request("an impersonation header is not readable"))
    };
    let all = |name: &str| headers.get_all(name).iter().map(text).collect::<Result<Vec<_>, _>>();
    let Some(name) = all("impersonate-user")?.into_iter().next().filter(|name| !name.is_empty())
    else {
        return Err(Status::bad_request(
            "requested impersonation of groups, a uid or extra fields without impersonating a user",
        ));
    };
    let groups = all("impersonate-group")?;
    let uid = all("impersonate-uid")?.into_iter().next();
    let mut target = UserInfo::authenticated(name.clone(), groups.clone());

    let (resource, namespace, service_account) =
        match name.strip_prefix("system:serviceaccount:").and_then(|n| n.split_once(':')) {
            Some((namespace, account)) => ("serviceaccounts", namespace, account),
            None => ("users", "", name.as_str()),
        };
    let mut asked = vec![ask("", resource, "", namespace, service_account)];
    asked.extend(groups.iter().map(|group| ask("", "groups", "", "", group)));
    if let Some(uid) = uid {
        asked.push(ask("authentication.k8s.io", "uids", "", "", &uid));
        target.uid = uid;
    }
    for header in names.iter().filter(|name| name.as_str().starts_with(EXTRA)) {
        let key = percent_encoding::percent_decode_str(&header.as_str()[EXTRA.len()..])
            .decode_utf8_lossy()
            .into_owned();
        for value in all(header.as_str())? {
            asked.push(ask("authentication.k8s.io", "userextras", &key, "", &value));
            target.extra.entry(key.clone()).or_default().push(value);
        }
    }
    for info in asked {
        let attributes = Attributes::of(&user, &info);
        if let Decision::Deny(reason) = authorizer.authorize(&attributes).await {
            return Err(attributes.forbidden(&reason));
        }
    }
    for name in names {
        headers.remove(name);
    }
    Ok(target)
}

fn ask(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> RequestInfo {
    RequestInfo {
        verb: "impersonate".into(),
        is_resource: true,
        group: group.into(),
        version: "v1".into(),
        namespace: namespace.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..RequestInfo::default()
    }
}
