//! The DNS kinds, as in KubeFed up to 0.6.

use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::table::Column;
use kubefed_apimachinery::{field, names};
use serde_json::{Value, json};

use crate::{DNS_GROUP, Kind};

/// Domain, ServiceDNSRecord, IngressDNSRecord and DNSEndpoint.
pub fn definitions() -> Vec<Definition> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let ttl = json!({"type": "integer", "format": "int64", "minimum": 0, "description": "How long answers may be kept, seconds."});
    let balancer = json!({"type": "object", "description": "The addresses of the load balancer.", "x-kubernetes-preserve-unknown-fields": true});
    let targets = json!({"type": "array", "description": "Where the name leads in each member.", "items": {
        "type": "object",
        "properties": {
            "cluster": text("The member."),
            "region": text("Its region."),
            "zones": {"type": "array", "description": "Its zones.", "items": {"type": "string"}},
            "loadBalancer": balancer,
        },
    }});
    vec![
        kind(
            "Domain",
            "domains",
            false,
            vec![Column::new("Domain", "string", ".spec.domain", 0)],
            Strategy { validate: validate_domain, ..Strategy::NONE },
            json!({
                "description": "Domain is a DNS zone that services of the federation get names in.",
                "type": "object",
                "properties": {
                    "domain": text("The DNS name of the zone; the same as spec.domain."),
                    "nameServer": text("The name server of the zone."),
                    "spec": {"type": "object", "description": "What is wanted.", "properties": {
                        "domain": text("The DNS name of the zone."),
                        "nameServer": text("The name server of the zone."),
                    }},
                },
            }),
        ),
        kind(
            "ServiceDNSRecord",
            "servicednsrecords",
            true,
            Vec::new(),
            Strategy::NONE,
            json!({
                "description": "ServiceDNSRecord gives the federated service of the same name its DNS names.",
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "spec": {"type": "object", "description": "What is wanted.", "required": ["domainRef"], "properties": {
                        "domainRef": text("The Domain."),
                        "recordTTL": ttl,
                        "dnsPrefix": text("A name of its own in the domain."),
                        "externalName": text("A name outside that leads here."),
                        "allowServiceWithoutEndpoints": {"type": "boolean", "description": "Whether a service without endpoints keeps its name."},
                    }},
                    "status": {"type": "object", "description": "What is known.", "properties": {"domain": text("The DNS name of the zone."), "dns": targets}},
                },
            }),
        ),
        kind(
            "IngressDNSRecord",
            "ingressdnsrecords",
            true,
            Vec::new(),
            Strategy::NONE,
            json!({
                "description": "IngressDNSRecord gives the federated ingress of the same name its DNS names.",
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "description": "What is wanted.", "properties": {
                        "hosts": {"type": "array", "description": "The names.", "items": {"type": "string"}},
                        "recordTTL": ttl,
                    }},
                    "status": {"type": "object", "description": "What is known.", "properties": {"dns": targets}},
                },
            }),
        ),
        kind(
            "DNSEndpoint",
            "dnsendpoints",
            true,
            Vec::new(),
            Strategy::NONE,
            json!({
                "description": "DNSEndpoint holds DNS records for external-dns and the federation's own name server.",
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "description": "What is wanted.", "properties": {
                        "endpoints": {"type": "array", "description": "The records.", "items": {"type": "object", "properties": {
                            "dnsName": text("The name."),
                            "targets": {"type": "array", "description": "What it leads to.", "items": {"type": "string"}},
                            "recordType": text("A, AAAA, CNAME, TXT …"),
                            "recordTTL": ttl,
                            "labels": {"type": "object", "description": "For the reader.", "additionalProperties": {"type": "string"}},
                            "providerSpecific": {"type": "array", "description": "For a DNS provider.", "items": {"type": "object", "properties": {
                                "name": text("The setting."), "value": text("Its value."),
                            }}},
                        }}},
                    }},
                    "status": {"type": "object", "description": "What is known.", "properties": {
                        "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that was taken up."},
                    }},
                },
            }),
        ),
    ]
}

fn kind(
    kind: &'static str,
    plural: &'static str,
    status: bool,
    mut columns: Vec<Column>,
    strategy: Strategy,
    schema: Value,
) -> Definition {
    columns.push(Column::age());
    let versions = &[(DNS_GROUP, "v1alpha1")];
    Kind {
        kind,
        plural,
        short_names: &[],
        namespaced: true,
        status,
        versions,
        columns,
        schema,
        strategy,
    }
    .define()
}

/// The zone that a Domain names, in either spelling.
pub fn domain_of(domain: &Value) -> Option<&str> {
    let given = |name: &&str| !name.is_empty();
    let spec = domain["spec"]["domain"].as_str().filter(given);
    spec.or_else(|| domain["domain"].as_str().filter(given))
}

fn validate_domain(domain: &Value) -> Vec<field::Error> {
    let path = field::Path::root("spec").child("domain");
    let Some(name) = domain_of(domain) else { return vec![field::Error::required(&path, "")] };
    let mut errors: Vec<field::Error> = names::dns1123_subdomain(name.trim_end_matches('.'))
        .into_iter()
        .map(|problem| field::Error::invalid(&path, json!(name), problem))
        .collect();
    if domain["domain"].as_str().is_some_and(|other| !other.is_empty() && other != name) {
        errors.push(field::Error::invalid(&path, json!(name), "contradicts domain"));
    }
    errors
}
