//! `Impersonate-*`: acting as somebody else, for those who may.

use http::{HeaderMap, HeaderValue};
use kubefed_apimachinery::status::Status;

use crate::authz::{Attributes, Authorizer, Decision};
use crate::request::RequestInfo;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

const PREFIX: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The user that the request is to be seen as; `None` if the headers ask for nobody else. Takes the headers off.
pub(super) async fn apply(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    if names.is_empty() {
        return Ok(None);
    }
    let (target, asked) = read(headers)?;
    for info in asked {
        let attributes = Attributes::of(user, &info);
        if let Decision::Deny(reason) = authorizer.authorize(&attributes).await? {
            return Err(attributes.forbidden(&reason));
        }
    }
    for name in names {
        headers.remove(name);
    }
    Ok(Some(target))
}

/// Whom the headers name, and the rights that it takes: one for the user, each group, the uid, each extra value.
fn read(headers: &HeaderMap) -> Result<(UserInfo, Vec<RequestInfo>), Status> {
    let text = |value: &HeaderValue| {
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
    let mut groups = all("impersonate-group")?;
    let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let mut asked = vec![match account {
        Some((namespace, account)) => ask("", "serviceaccounts", "", namespace, account),
        None => ask("", "users", "", "", &name),
    }];
    asked.extend(groups.iter().map(|group| ask("", "groups", "", "", group)));
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        // The groups that the account has by itself come with it.
        groups.push("system:serviceaccounts".into());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let has = |groups: &[String], wanted: &str| groups.iter().any(|group| group == wanted);
    if name == ANONYMOUS {
        if !has(&groups, UNAUTHENTICATED) {
            groups.push(UNAUTHENTICATED.into());
        }
    } else if !has(&groups, AUTHENTICATED) && !has(&groups, UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let mut target = UserInfo { name, groups, ..UserInfo::default() };
    if let Some(uid) = all("impersonate-uid")?.into_iter().next() {
        asked.push(ask("authentication.k8s.io", "uids", "", "", &uid));
        target.uid = uid;
    }
    for header in headers.keys().filter(|name| name.as_str().starts_with(EXTRA)) {
        let key = percent_encoding::percent_decode_str(&header.as_str()[EXTRA.len()..])
            .decode_utf8_lossy()
            .into_owned();
        for value in all(header.as_str())? {
            asked.push(ask("authentication.k8s.io", "userextras", &key, "", &value));
            target.extra.entry(key.clone()).or_default().push(value);
        }
    }
    Ok((target, asked))
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

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn every_part_of_an_identity_is_a_right_of_its_own() {
        let (target, asked) = read(&headers(&[
            ("impersonate-user", "alice"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-example.com%2fscopes", "read"),
        ]))
        .unwrap();
        assert_eq!((target.name.as_str(), target.uid.as_str()), ("alice", "7"));
        assert_eq!(target.groups, ["ops", AUTHENTICATED]);
        assert_eq!(target.extra["example.com/scopes"], ["read"]);
        let asked: Vec<String> = asked
            .iter()
            .map(|info| format!("{}/{} {}", info.resource, info.subresource, info.name))
            .collect();
        let wanted =
            ["users/ alice", "groups/ ops", "uids/ 7", "userextras/example.com/scopes read"];
        assert_eq!(asked, wanted);
    }

    #[test]
    fn a_user_gets_the_groups_that_come_with_it() {
        let groups =
            |lines: &[(&'static str, &'static str)]| read(&headers(lines)).unwrap().0.groups;
        let account = "system:serviceaccount:a:bot";
        assert_eq!(
            groups(&[("impersonate-user", account)]),
            ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]
        );
        assert_eq!(
            groups(&[("impersonate-user", account), ("impersonate-group", "g")]),
            ["g", AUTHENTICATED]
        );
        assert_eq!(groups(&[("impersonate-user", ANONYMOUS)]), [UNAUTHENTICATED]);
        assert_eq!(
            groups(&[("impersonate-user", "x"), ("impersonate-group", UNAUTHENTICATED)]),
            [UNAUTHENTICATED]
        );
        for lines in [&[("impersonate-group", "ops")][..], &[("impersonate-user", "")]] {
            assert_eq!(read(&headers(lines)).unwrap_err().code, 400);
        }
    }
}
