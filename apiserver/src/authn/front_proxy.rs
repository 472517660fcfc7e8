//! Whom a host's front proxy names, and when it is believed: only over a connection whose certificate comes from the
//! front proxy's authority and bears an allowed name (kubernetes.io, "Configure the Aggregation Layer";
//! `authentication/request/headerrequest` of `k8s.io/apiserver`).

use std::collections::BTreeMap;

use http::HeaderMap;
use kubefed_certs::Authorities;
use percent_encoding::percent_decode_str;

use crate::listener::PeerCertificate;
use crate::user::{ANONYMOUS, UNAUTHENTICATED, UserInfo};

/// Whom a server behind a host believes.
#[derive(Debug, Default)]
pub struct Trust {
    clients: Option<Authorities>,
    front_proxy: Option<FrontProxy>,
}

#[derive(Debug)]
struct FrontProxy {
    authorities: Authorities,
    /// The common names that its certificate may have; any if there are none.
    names: Vec<String>,
    user_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Who vouches for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    client: bool,
    front_proxy: bool,
}

impl Trust {
    /// Reads the data of the ConfigMap `kube-system/extension-apiserver-authentication`.
    ///
    /// # Errors
    /// Says which key can't be read.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let authorities = |key: &str| match data.get(key).filter(|pem| !pem.trim().is_empty()) {
            None => Ok(None),
            Some(pem) => Authorities::from_pem(pem.as_bytes())
                .map(Some)
                .map_err(|error| format!("{key}: {error}")),
        };
        // Names of headers are compared as HTTP does it: in lower case.
        let list = |key: &str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => {
                serde_json::from_str::<Vec<String>>(text).map_err(|error| format!("{key}: {error}"))
            }
        };
        let headers = |key: &str| {
            let lower = |names: Vec<String>| names.iter().map(|n| n.to_ascii_lowercase()).collect();
            list(key).map(lower)
        };
        let front_proxy = match authorities("requestheader-client-ca-file")? {
            None => None,
            Some(authorities) => Some(FrontProxy {
                authorities,
                names: list("requestheader-allowed-names")?,
                user_headers: headers("requestheader-username-headers")?,
                uid_headers: headers("requestheader-uid-headers")?,
                group_headers: headers("requestheader-group-headers")?,
                extra_prefixes: headers("requestheader-extra-headers-prefix")?,
            }),
        };
        Ok(Trust { clients: authorities("client-ca-file")?, front_proxy })
    }

    /// The authorities that are believed, by the names that they have in certificates, as DER.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        let front_proxy = self.front_proxy.as_ref().map(|proxy| &proxy.authorities);
        let all = self.clients.iter().chain(front_proxy);
        all.flat_map(Authorities::names).collect()
    }

    /// Who vouches for a chain of certificates at `now`, in seconds since 1970.
    pub(crate) fn vouched(&self, certificate: &PeerCertificate, now: i64) -> Vouched {
        let by = |authorities: &Authorities| authorities.vouch_for(&certificate.chain, now);
        Vouched {
            client: self.clients.as_ref().is_some_and(by),
            front_proxy: self.front_proxy.as_ref().is_some_and(|proxy| by(&proxy.authorities)),
        }
    }

    /// The user that a request with this certificate comes from; `None` if the certificate speaks for nobody.
    pub(crate) fn user(
        self: &std::sync::Arc<Self>,
        certificate: &PeerCertificate,
        headers: &HeaderMap,
        now: i64,
    ) -> Option<UserInfo> {
        if certificate.ends < now {
            return None;
        }
        let vouched = certificate.vouched(self, now);
        let identity = certificate.identity.as_ref()?;
        let proxied = self
            .front_proxy
            .as_ref()
            .filter(|proxy| vouched.front_proxy && proxy.is_named(&identity.common_name))
            .and_then(|proxy| proxy.user(headers));
        proxied.or_else(|| {
            vouched.client.then(|| {
                UserInfo::authenticated(
                    identity.common_name.clone(),
                    identity.organizations.clone(),
                )
            })
        })
    }
}

impl FrontProxy {
    fn is_named(&self, common_name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == common_name)
    }

    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let name = only(headers, &self.user_headers)??;
        let uid = only(headers, &self.uid_headers)?.unwrap_or_default();
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name));
        let groups: Vec<String> = groups.filter_map(text).filter(|name| !name.is_empty()).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key =
                self.extra_prefixes.iter().find_map(|p| header.as_str().strip_prefix(p.as_str()));
            if let (Some(key), Some(value)) = (key.filter(|key| !key.is_empty()), text(value)) {
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value);
            }
        }
        let is_nobody = name == ANONYMOUS || groups.iter().any(|group| group == UNAUTHENTICATED);
        Some(if is_nobody {
            UserInfo { name, uid, groups, extra }
        } else {
            UserInfo { uid, extra, ..UserInfo::authenticated(name, groups) }
        })
    }
}

/// The value of the first of these headers that is there, if any is. `None` if that cannot be told: a front proxy sets
/// it once, so a second one comes from somebody else, and who is to say which.
fn only(headers: &HeaderMap, names: &[String]) -> Option<Option<String>> {
    for name in names {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => {}
            (Some(value), None) => match text(value)? {
                // HTTP/2 takes off no spaces.
                blank if blank.trim().is_empty() => {}
                value => return Some(Some(value)),
            },
            (Some(_), Some(_)) => return None,
        }
    }
    Some(None)
}

fn text(value: &http::HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}
