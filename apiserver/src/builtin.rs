//! Kubernetes' own kinds, from the schemas that `k8s-openapi` carries.
//!
//! The standalone server needs a handful of them, a local member most. Which ones a server has is its choice
//! ([`definitions`]); how each looks is here, once, as a table.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use kubefed_api::federated::TargetSchema;
use kubefed_apimachinery::definition::{Definition, Scale, Strategy, Subresources, Version};
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::schema::Schemas;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

mod columns;
mod lists;

/// One kind of Kubernetes, as far as its schema does not say.
struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    traits: &'static [Trait],
    schema: fn(&mut SchemaGenerator) -> schemars::Schema,
}

#[derive(PartialEq)]
enum Trait {
    /// Lives outside namespaces.
    Cluster,
    /// Has a `status` subresource.
    Status,
    /// Has a `scale` subresource over `spec.replicas`.
    Scale,
    /// Shown by `kubectl get all`.
    All,
}

use Trait::{All, Cluster, Scale as Scaled, Status};

macro_rules! builtins {
    ($($group:literal $version:literal $kind:literal $plural:literal [$($short:literal)*] [$($trait:ident)*] $ty:ty;)*) => {
        static BUILTINS: &[Builtin] = &[$(Builtin {
            group: $group,
            version: $version,
            kind: $kind,
            plural: $plural,
            short_names: &[$($short),*],
            traits: &[$($trait),*],
            schema: |generator| generator.subschema_for::<$ty>(),
        }),*];
    };
}

builtins! {
    "" "v1" "ConfigMap" "configmaps" ["cm"] [] api::core::v1::ConfigMap;
    "" "v1" "Event" "events" ["ev"] [] api::core::v1::Event;
    "" "v1" "Namespace" "namespaces" ["ns"] [Cluster Status] api::core::v1::Namespace;
    "" "v1" "Node" "nodes" ["no"] [Cluster Status] api::core::v1::Node;
    "" "v1" "PersistentVolume" "persistentvolumes" ["pv"] [Cluster Status] api::core::v1::PersistentVolume;
    "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims" ["pvc"] [Status] api::core::v1::PersistentVolumeClaim;
    "" "v1" "Pod" "pods" ["po"] [Status All] api::core::v1::Pod;
    "" "v1" "ReplicationController" "replicationcontrollers" ["rc"] [Status Scaled All] api::core::v1::ReplicationController;
    "" "v1" "ResourceQuota" "resourcequotas" ["quota"] [Status] api::core::v1::ResourceQuota;
    "" "v1" "LimitRange" "limitranges" ["limits"] [] api::core::v1::LimitRange;
    "" "v1" "Secret" "secrets" [] [] api::core::v1::Secret;
    "" "v1" "Service" "services" ["svc"] [Status All] api::core::v1::Service;
    "" "v1" "ServiceAccount" "serviceaccounts" ["sa"] [] api::core::v1::ServiceAccount;
    "" "v1" "Endpoints" "endpoints" ["ep"] [] api::core::v1::Endpoints;
    "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" ["crd" "crds"] [Cluster Status] apiextensions::v1::CustomResourceDefinition;
    "apps" "v1" "DaemonSet" "daemonsets" ["ds"] [Status All] api::apps::v1::DaemonSet;
    "apps" "v1" "Deployment" "deployments" ["deploy"] [Status Scaled All] api::apps::v1::Deployment;
    "apps" "v1" "ReplicaSet" "replicasets" ["rs"] [Status Scaled All] api::apps::v1::ReplicaSet;
    "apps" "v1" "StatefulSet" "statefulsets" ["sts"] [Status Scaled All] api::apps::v1::StatefulSet;
    "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" ["hpa"] [Status All] api::autoscaling::v2::HorizontalPodAutoscaler;
    "batch" "v1" "CronJob" "cronjobs" ["cj"] [Status All] api::batch::v1::CronJob;
    "batch" "v1" "Job" "jobs" [] [Status All] api::batch::v1::Job;
    "coordination.k8s.io" "v1" "Lease" "leases" [] [] api::coordination::v1::Lease;
    "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" [] [] api::discovery::v1::EndpointSlice;
    "networking.k8s.io" "v1" "Ingress" "ingresses" ["ing"] [Status] api::networking::v1::Ingress;
    "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" ["netpol"] [] api::networking::v1::NetworkPolicy;
    "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets" ["pdb"] [Status] api::policy::v1::PodDisruptionBudget;
    "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" [] [Cluster] api::rbac::v1::ClusterRole;
    "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" [] [Cluster] api::rbac::v1::ClusterRoleBinding;
    "rbac.authorization.k8s.io" "v1" "Role" "roles" [] [] api::rbac::v1::Role;
    "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" [] [] api::rbac::v1::RoleBinding;
    "storage.k8s.io" "v1" "StorageClass" "storageclasses" ["sc"] [Cluster] api::storage::v1::StorageClass;
}

/// The documents of every built-in kind, and of the kinds that requests and answers are made of, by their official
/// names (`io.k8s.api.apps.v1.Deployment`). Made at first use and shared.
pub fn documents() -> &'static BTreeMap<String, Value> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let mut settings = schemars::generate::SchemaSettings::draft07();
        settings.definitions_path = "/components/schemas".into();
        let mut generator = settings.into_generator();
        for builtin in BUILTINS {
            (builtin.schema)(&mut generator);
        }
        generator.subschema_for::<meta::v1::DeleteOptions>();
        generator.subschema_for::<meta::v1::Status>();
        generator.subschema_for::<meta::v1::ListMeta>();
        generator.subschema_for::<api::autoscaling::v1::Scale>();
        generator.subschema_for::<api::authentication::v1::SelfSubjectReview>();
        generator.subschema_for::<api::authentication::v1::TokenRequest>();
        generator.subschema_for::<api::authentication::v1::TokenReview>();
        generator.subschema_for::<api::authorization::v1::LocalSubjectAccessReview>();
        generator.subschema_for::<api::authorization::v1::SelfSubjectAccessReview>();
        generator.subschema_for::<api::authorization::v1::SelfSubjectRulesReview>();
        generator.subschema_for::<api::authorization::v1::SubjectAccessReview>();
        generator
            .take_definitions(true)
            .into_iter()
            .map(|(name, document)| {
                let document = as_kubernetes_has_it(&name, document);
                (name, document)
            })
            .collect()
    })
}

/// The compiled form of [`documents`].
pub fn schemas() -> &'static Arc<Schemas> {
    static SCHEMAS: OnceLock<Arc<Schemas>> = OnceLock::new();
    SCHEMAS.get_or_init(|| Schemas::new(documents().clone()))
}

/// What a federated kind needs to know of a built-in target.
pub fn target_schema(group: &str, version: &str, kind: &str) -> Option<TargetSchema> {
    let builtin =
        BUILTINS.iter().find(|b| b.group == group && b.version == version && b.kind == kind)?;
    let name = name_of(builtin);
    let document = |name: String| Some((name.clone(), documents().get(&name)?.clone()));
    Some(TargetSchema {
        documents: schemas().closure(&name).into_iter().filter_map(document).collect(),
        name,
        short_names: builtin.short_names.iter().map(|name| format!("f{name}")).collect(),
    })
}

/// Whether there is a [`target_schema`] of a kind.
pub fn is_known(group: &str, version: &str, kind: &str) -> bool {
    BUILTINS.iter().any(|b| b.group == group && b.version == version && b.kind == kind)
}

/// The definitions of the built-in kinds that `wanted(group, kind)` says yes to, with Kubernetes' printer columns.
pub fn definitions(wanted: impl Fn(&str, &str) -> bool) -> Vec<Definition> {
    BUILTINS.iter().filter(|b| wanted(b.group, b.kind)).map(definition).collect()
}

fn definition(builtin: &Builtin) -> Definition {
    let has = |wanted: Trait| builtin.traits.contains(&wanted);
    let group_version =
        GroupVersion { group: builtin.group.into(), version: builtin.version.into() };
    let schema_name = name_of(builtin);
    let schema = schemas().get(&schema_name).expect("the documents are made from the same table");
    Definition {
        group: builtin.group.into(),
        kind: builtin.kind.into(),
        list_kind: format!("{}List", builtin.kind),
        plural: builtin.plural.into(),
        singular: builtin.kind.to_lowercase(),
        short_names: builtin.short_names.iter().map(|&s| s.into()).collect(),
        categories: if has(All) { vec!["all".into()] } else { Vec::new() },
        namespaced: !has(Cluster),
        versions: vec![Version {
            group_version: group_version.clone(),
            schema,
            schema_name,
            columns: columns::of(builtin.group, builtin.kind),
            served: true,
        }],
        storage: group_version,
        subresources: Subresources {
            status: has(Status),
            scale: has(Scaled).then(|| Scale {
                spec_replicas: "spec.replicas".into(),
                status_replicas: "status.replicas".into(),
                selector: Some("spec.selector".into()),
            }),
        },
        selectable_fields: selectable_fields(builtin.kind),
        strategic_patch: true,
        terminating: false,
        strategy: Strategy::default(),
    }
}

/// The fields that Kubernetes lets clients select by, beside name and namespace.
fn selectable_fields(kind: &str) -> Vec<String> {
    let fields: &[&str] = match kind {
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "reason",
            "type",
            "reportingComponent",
        ],
        "Pod" => &["spec.nodeName", "spec.serviceAccountName", "status.phase"],
        "Namespace" => &["status.phase"],
        "Secret" => &["type"],
        "ReplicaSet" | "ReplicationController" => &["status.replicas"],
        "Job" => &["status.successful"],
        _ => &[],
    };
    fields.iter().map(|&f| f.into()).collect()
}

fn name_of(builtin: &Builtin) -> String {
    let package = match builtin.group {
        "" => "core",
        "apiextensions.k8s.io" => {
            return format!(
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{}.{}",
                builtin.version, builtin.kind
            );
        }
        group => group.split('.').next().expect("split yields at least one part"),
    };
    format!("io.k8s.api.{package}.{}.{}", builtin.version, builtin.kind)
}

/// What the generated schema lacks against Kubernetes' published one: list semantics, the places where anything may
/// stand, and that `metadata` may be left out.
fn as_kubernetes_has_it(name: &str, mut document: Value) -> Value {
    if let Some(required) = document.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "metadata");
    }
    if document["required"].as_array().is_some_and(Vec::is_empty)
        && let Some(document) = document.as_object_mut()
    {
        document.remove("required");
    }
    let short = name.rsplit('.').next().unwrap_or(name);
    match short {
        "RawExtension" | "FieldsV1" => {
            set(&mut document, "x-kubernetes-preserve-unknown-fields", json!(true))
        }
        "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray" => {
            document = json!({"description": document["description"], "x-kubernetes-preserve-unknown-fields": true});
        }
        _ if lists::ATOMIC_STRUCTS.contains(&short) => {
            set(&mut document, "x-kubernetes-map-type", json!("atomic"))
        }
        _ => {}
    }
    if name.starts_with("io.k8s.api.")
        || short == "ObjectMeta"
        || short.starts_with("CustomResourceDefinition")
    {
        lists::annotate(short, &mut document);
    }
    if let Some(builtin) = BUILTINS.iter().find(|b| name_of(b) == name) {
        set(
            &mut document,
            "x-kubernetes-group-version-kind",
            json!([{"group": builtin.group, "version": builtin.version, "kind": builtin.kind}]),
        );
    }
    document
}

fn set(document: &mut Value, key: &str, value: Value) {
    if let Some(document) = document.as_object_mut() {
        document.insert(key.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_has_a_document() {
        for builtin in BUILTINS {
            assert!(documents().contains_key(&name_of(builtin)), "{}", name_of(builtin));
        }
    }

    #[test]
    fn the_containers_of_a_pod_are_a_map_by_name() {
        let containers = &documents()["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }

    #[test]
    fn every_row_of_the_list_table_names_a_field_that_exists() {
        for (kind, field) in lists::rows() {
            let found = documents().iter().any(|(name, document)| {
                name.ends_with(&format!(".{kind}")) && document["properties"].get(field).is_some()
            });
            assert!(found, "{kind}.{field}");
        }
    }
}
