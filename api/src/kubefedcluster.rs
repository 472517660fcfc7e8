//! KubeFedCluster: a member.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::table::Column;
use kubefed_apimachinery::{field, names};
use serde_json::{Value, json};

use crate::{CORE_GROUP, Kind};

const CONDITIONS: &[&str] = &["ConfigMalformed", "Offline", "Ready"];
const TLS_VALIDATIONS: &[&str] = &["*", "SubjectName", "ValidityPeriod"];
const PROXY_SCHEMES: &[&str] = &["http", "https", "socks5"];

/// The kind.
pub fn definition() -> Definition {
    Kind {
        kind: "KubeFedCluster",
        plural: "kubefedclusters",
        short_names: &["kfc"],
        namespaced: true,
        status: true,
        versions: &[(CORE_GROUP, "v1beta1")],
        columns: vec![
            Column::age(),
            Column::new("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0),
            Column::new("Kubernetes-Version", "string", ".status.kubernetesVersion", 0),
            Column::new("Region", "string", ".status.region", 1),
            Column::new("Endpoint", "string", ".spec.apiEndpoint", 1),
        ],
        schema: schema(),
        strategy: Strategy {
            validate,
            validate_status: |new, _| validate_status(new),
            warnings: crate::outside_of_system_namespace,
            ..Strategy::NONE
        },
    }
    .define()
}

fn schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": "KubeFedCluster is a cluster that the federation places objects in. Its labels are what cluster selectors match.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "description": "How to reach the cluster.",
                "type": "object",
                "required": ["apiEndpoint", "secretRef"],
                "properties": {
                    "apiEndpoint": text("The API server: a host, host:port, address or URL."),
                    "caBundle": {"type": "string", "format": "byte", "description": "The certificate authorities that the API server's certificate is checked against: PEM, base64-encoded."},
                    "secretRef": {"type": "object", "description": "The secret in the same namespace that holds the token for the cluster, under the key token.", "required": ["name"], "properties": {
                        "name": text("The name of the secret."),
                    }},
                    "disabledTLSValidations": {"type": "array", "description": "Checks of the API server's certificate that are left out. Each makes the connection less safe.", "items": {"type": "string", "enum": TLS_VALIDATIONS}},
                    "proxyURL": text("A proxy to go through: http, https or socks5."),
                },
            },
            "status": {
                "description": "What is known of the cluster.",
                "type": "object",
                "properties": {
                    "conditions": {"type": "array", "description": "Whether the cluster is ready, offline or malformed.", "items": {
                        "type": "object",
                        "required": ["type", "status"],
                        "properties": {
                            "type": text("Ready, Offline or ConfigMalformed."),
                            "status": text("True, False or Unknown."),
                            "lastProbeTime": {"type": "string", "format": "date-time", "description": "When this was last found to be so."},
                            "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When this began to be so."},
                            "reason": text("Why, in one word."),
                            "message": text("Why, in words."),
                        },
                    }},
                    "kubernetesVersion": text("The version that the API server tells."),
                    "zones": {"type": "array", "description": "The zones of the nodes.", "items": {"type": "string"}},
                    "region": text("The region of the nodes."),
                    "clusterUID": text("The uid of the cluster's namespace kube-system: it tells one cluster from another that is joined under the same name."),
                },
            },
        },
    })
}

fn validate(cluster: &Value) -> Vec<field::Error> {
    let spec = &cluster["spec"];
    let root = field::Path::root("spec");
    let mut errors = Vec::new();
    let endpoint = spec["apiEndpoint"].as_str().unwrap_or("");
    if let Err(why) = endpoint_url(endpoint) {
        let path = root.child("apiEndpoint");
        errors.push(match endpoint {
            "" => field::Error::required(&path, ""),
            _ => field::Error::invalid(&path, json!(endpoint), why),
        });
    }
    let path = root.child("secretRef").child("name");
    match spec["secretRef"]["name"].as_str().unwrap_or("") {
        "" => errors.push(field::Error::required(&path, "")),
        name => errors.extend(
            names::dns1123_subdomain(name)
                .into_iter()
                .map(|p| field::Error::invalid(&path, json!(name), p)),
        ),
    }
    if let Some(bundle) = spec["caBundle"].as_str().filter(|bundle| !bundle.is_empty()) {
        let path = root.child("caBundle");
        let remedy = "must be a PEM certificate, base64-encoded: base64 -w0 < ca.crt";
        match BASE64_STANDARD.decode(bundle) {
            Ok(pem) if holds_certificate(&pem) => {}
            Ok(_) => errors.push(field::Error::invalid(
                &path,
                json!("<binary>"),
                format!("it holds no certificate; {remedy}"),
            )),
            Err(_) => {
                let shown: String = bundle.chars().take(40).collect();
                errors.push(field::Error::invalid(
                    &path,
                    json!(shown),
                    format!("it is not base64; {remedy}"),
                ));
            }
        }
    }
    let disabled: Vec<&str> = spec["disabledTLSValidations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if disabled.contains(&"*") && disabled.len() > 1 {
        errors.push(field::Error::invalid(
            &root.child("disabledTLSValidations"),
            json!(disabled),
            "when * is specified, it is expected to be the only option in list",
        ));
    }
    if let Some(proxy) = spec["proxyURL"].as_str().filter(|proxy| !proxy.is_empty()) {
        let path = root.child("proxyURL");
        match proxy.split_once("://") {
            Some((scheme, rest)) if PROXY_SCHEMES.contains(&scheme) && !rest.is_empty() => {}
            Some(_) => errors.push(field::Error::invalid(
                &path,
                json!(proxy),
                "proxy URL scheme must be one of: [http, https, socks5]",
            )),
            None => errors.push(field::Error::invalid(
                &path,
                json!(proxy),
                "error parsing the proxy URL",
            )),
        }
    }
    errors
}

fn holds_certificate(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    let body = text
        .split_once("-----BEGIN CERTIFICATE-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"));
    body.is_some_and(|(body, _)| {
        let body: String = body.split_whitespace().collect();
        // A certificate is a DER sequence.
        BASE64_STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30) && der.len() > 64)
    })
}

/// The URL of an endpoint that may leave out scheme and port (client-go's `DefaultServerURL`).
///
/// # Errors
/// What is wrong with it.
pub fn endpoint_url(endpoint: &str) -> Result<String, String> {
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("https", endpoint),
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!(
            "scheme {scheme:?} is not supported: supported values: \"http\", \"https\""
        ));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
        return Err("it names no host".into());
    }
    let port = match host.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => Some(port),
        Some(_) if !(host.starts_with('[') && host.ends_with(']')) => {
            return Err("an IPv6 address stands in brackets".into());
        }
        _ => None,
    };
    if let Some(port) = port
        && port.parse::<u16>().map_or(true, |port| port == 0)
    {
        return Err(format!("error converting port to integer: {port:?} is not a port"));
    }
    Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

fn validate_status(cluster: &Value) -> Vec<field::Error> {
    let root = field::Path::root("status").child("conditions");
    let mut errors = Vec::new();
    for (index, condition) in
        cluster["status"]["conditions"].as_array().into_iter().flatten().enumerate()
    {
        let path = root.index(index);
        if !CONDITIONS.iter().any(|known| condition["type"] == *known) {
            errors.push(field::Error::not_supported(
                &path.child("type"),
                condition["type"].clone(),
                CONDITIONS,
            ));
        }
        if !["True", "False", "Unknown"].iter().any(|known| condition["status"] == *known) {
            let supported = &["False", "True", "Unknown"];
            errors.push(field::Error::not_supported(
                &path.child("status"),
                condition["status"].clone(),
                supported,
            ));
        }
        if condition["lastProbeTime"].as_str().is_none_or(str::is_empty) {
            errors.push(field::Error::required(&path.child("lastProbeTime"), ""));
        }
    }
    errors
}

/// Whether a cluster is ready, by its conditions.
pub fn is_ready(cluster: &Value) -> bool {
    let conditions = cluster["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_completed_or_refused() {
        for (endpoint, wanted) in [
            ("https://cluster1.example.com", Some("https://cluster1.example.com")),
            ("cluster1.example.com:6443", Some("https://cluster1.example.com:6443")),
            ("127.0.0.1", Some("https://127.0.0.1")),
            ("[::1]:443", Some("https://[::1]:443")),
            ("[::1]", Some("https://[::1]")),
            ("http://a/", Some("http://a")),
            ("https://a/k8s/clusters/c-1", Some("https://a/k8s/clusters/c-1")),
            ("::1", None),
            ("https://[::1", None),
            ("https://a b", None),
            ("https://user@a", None),
            ("", None),
            ("ftp://a", None),
            ("https://a:x", None),
            ("https://a:0", None),
            ("a:99999", None),
        ] {
            assert_eq!(endpoint_url(endpoint).ok().as_deref(), wanted, "{endpoint}");
        }
    }

    #[test]
    fn a_bundle_that_is_left_blank_is_named() {
        let cluster = |bundle: &str| json!({"spec": {"apiEndpoint": "a", "secretRef": {"name": "s"}, "caBundle": bundle}});
        for bundle in ["<base64-encoded-ca-cert>", "aGVsbG8="] {
            let errors = validate(&cluster(bundle));
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].path, "spec.caBundle");
        }
        assert!(validate(&cluster("")).is_empty());
    }

    #[test]
    fn every_wrong_field_is_told() {
        let cluster = json!({"spec": {"apiEndpoint": "x://", "secretRef": {"name": "A"}, "disabledTLSValidations": ["*", "SubjectName"], "proxyURL": "ftp://x"}});
        let paths: Vec<String> = validate(&cluster).into_iter().map(|error| error.path).collect();
        assert_eq!(
            paths,
            [
                "spec.apiEndpoint",
                "spec.secretRef.name",
                "spec.disabledTLSValidations",
                "spec.proxyURL"
            ]
        );
    }
}
