//! Kubernetes' own kinds that one may want in every cluster, for when there is no cluster to ask.

use std::any::TypeId;

use k8s_openapi::api::{
    apps, autoscaling, batch, core, networking, policy, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::{NamespaceResourceScope, Resource as Known};
use kubefed_api::federatedtypeconfig::ApiResource;

use super::Resource;

macro_rules! kinds {
    ($($kind:ty [$($short:literal)*];)*) => {
        /// All of them.
        pub(super) fn kinds() -> Vec<Resource> {
            vec![$(resource::<$kind>(&[$($short),*])),*]
        }
    };
}

kinds! {
    core::v1::ConfigMap ["cm"];
    core::v1::Endpoints ["ep"];
    core::v1::LimitRange ["limits"];
    core::v1::Namespace ["ns"];
    core::v1::PersistentVolume ["pv"];
    core::v1::PersistentVolumeClaim ["pvc"];
    core::v1::Pod ["po"];
    core::v1::ReplicationController ["rc"];
    core::v1::ResourceQuota ["quota"];
    core::v1::Secret [];
    core::v1::Service ["svc"];
    core::v1::ServiceAccount ["sa"];
    apiextensions::v1::CustomResourceDefinition ["crd" "crds"];
    apps::v1::DaemonSet ["ds"];
    apps::v1::Deployment ["deploy"];
    apps::v1::ReplicaSet ["rs"];
    apps::v1::StatefulSet ["sts"];
    autoscaling::v2::HorizontalPodAutoscaler ["hpa"];
    batch::v1::CronJob ["cj"];
    batch::v1::Job [];
    networking::v1::Ingress ["ing"];
    networking::v1::IngressClass [];
    networking::v1::NetworkPolicy ["netpol"];
    policy::v1::PodDisruptionBudget ["pdb"];
    rbac::v1::ClusterRole [];
    rbac::v1::ClusterRoleBinding [];
    rbac::v1::Role [];
    rbac::v1::RoleBinding [];
    scheduling::v1::PriorityClass ["pc"];
    storage::v1::StorageClass ["sc"];
}

fn resource<T: Known<Scope: 'static>>(short_names: &[&str]) -> Resource {
    let namespaced = TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>();
    Resource {
        api: ApiResource {
            group: T::GROUP.into(),
            version: T::VERSION.into(),
            kind: T::KIND.into(),
            plural_name: T::URL_PATH_SEGMENT.into(),
            scope: if namespaced { "Namespaced".into() } else { "Cluster".into() },
        },
        singular: T::KIND.to_lowercase(),
        short_names: short_names.iter().map(|&name| name.into()).collect(),
        verbs: Vec::new(),
        preferred: true,
    }
}
