//! How a cluster is reached, by its KubeFedCluster and the token of its secret. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::kubefedcluster::endpoint_url;
use kubefed_certs::{ClientTls, Unchecked};
use serde_json::Value;

use crate::client::{Access, Proxy};

/// A token is some kilobytes; what is longer is none.
const MAX_TOKEN: usize = 64 * 1024;

/// All that is kept of a secret: the token in it, or why there is none. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Result<String, &'static str>);

impl Token {
    pub(super) fn text(&self) -> Result<&str, &'static str> {
        self.0.as_deref().map_err(|why| *why)
    }
}

/// The token of a secret.
pub(super) fn token(secret: &Value) -> Token {
    let encoded = secret["data"]["token"].as_str().unwrap_or("");
    if encoded.is_empty() {
        return Token(Err("it has nothing under the key token"));
    }
    if encoded.len() > MAX_TOKEN {
        return Token(Err("its token is longer than any token"));
    }
    let decoded =
        BASE64_STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.map(|text| text.trim().to_owned());
    Token(match text {
        Some(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => Ok(text),
        _ => Err("its token is not one line of text"),
    })
}

/// How to reach a cluster; an error names the field that is wrong.
pub(super) fn access(spec: &Value, token: String) -> Result<Access, String> {
    let text = |field: &str| spec[field].as_str().unwrap_or("");
    let url =
        endpoint_url(text("apiEndpoint")).map_err(|why| format!("spec.apiEndpoint: {why}"))?;
    if !url.starts_with("https://") {
        return Err("spec.apiEndpoint: it must be https, as the token is sent there".into());
    }
    let unchecked = unchecked(&spec["disabledTLSValidations"])
        .map_err(|why| format!("spec.disabledTLSValidations: {why}"))?;
    let ca_pem =
        BASE64_STANDARD.decode(text("caBundle")).map_err(|why| format!("spec.caBundle: {why}"))?;
    if ca_pem.is_empty() && !unchecked.everything {
        return Err(
            "spec.caBundle is empty: give the authority of the cluster's certificate".into()
        );
    }
    let proxy = match text("proxyURL") {
        "" => None,
        url => Some(Proxy::parse(url).map_err(|why| format!("spec.proxyURL: {why}"))?),
    };
    let tls = ClientTls { ca_pem, ..ClientTls::default() };
    Ok(Access { url, tls, unchecked, proxy, token: Some(token), ..Access::default() })
}

/// The checks of the cluster's certificate that are to be left out.
fn unchecked(disabled: &Value) -> Result<Unchecked, String> {
    let mut unchecked = Unchecked::default();
    for check in disabled.as_array().into_iter().flatten() {
        match check.as_str() {
            Some("*") => unchecked.everything = true,
            Some("SubjectName") => unchecked.name = true,
            Some("ValidityPeriod") => unchecked.validity = true,
            _ => return Err(format!("{check} is none of \"*\", SubjectName and ValidityPeriod")),
        }
    }
    Ok(unchecked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(change: Value) -> Result<Access, String> {
        let mut spec =
            json!({"apiEndpoint": "c.example.com", "caBundle": BASE64_STANDARD.encode("PEM")});
        for (field, value) in change.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        access(&spec, "token".into())
    }

    #[test]
    fn every_field_of_a_cluster_counts() {
        let plain = of(json!({})).unwrap();
        assert_eq!(plain.url, "https://c.example.com");
        assert_eq!(plain.unchecked, Unchecked::default());
        assert!(plain.proxy.is_none());
        let checks = json!({"disabledTLSValidations": ["SubjectName", "ValidityPeriod"]});
        let unchecked = Unchecked { everything: false, name: true, validity: true };
        assert_eq!(of(checks).unwrap().unchecked, unchecked);
        let all = of(json!({"disabledTLSValidations": ["*"], "caBundle": ""})).unwrap();
        assert!(all.unchecked.everything);
        assert!(of(json!({"proxyURL": "http://proxy:3128"})).unwrap().proxy.is_some());
    }

    #[test]
    fn of_a_secret_the_token_is_kept_or_why_there_is_none() {
        let of = |text: &str| {
            token(&json!({"data": {"token": BASE64_STANDARD.encode(text), "other": "x"}}))
        };
        assert_eq!(of("abc.def\n").text(), Ok("abc.def"));
        for unfit in ["", "two\nlines", &"x".repeat(MAX_TOKEN)] {
            assert!(of(unfit).text().is_err(), "{unfit}");
        }
        assert!(token(&json!({"data": {"token": "?"}})).text().is_err());
        assert!(token(&json!({})).text().is_err());
    }

    #[test]
    fn a_field_that_is_wrong_is_named() {
        for (change, field) in [
            (json!({"apiEndpoint": "http://c"}), "spec.apiEndpoint"),
            (json!({"apiEndpoint": ""}), "spec.apiEndpoint"),
            (json!({"caBundle": "?"}), "spec.caBundle"),
            (json!({"caBundle": ""}), "spec.caBundle"),
            (json!({"proxyURL": "proxy:3128"}), "spec.proxyURL"),
            (json!({"disabledTLSValidations": ["All"]}), "spec.disabledTLSValidations"),
        ] {
            let Err(why) = of(change) else { panic!("{field} is taken") };
            assert!(why.starts_with(field), "{why}");
        }
    }
}
