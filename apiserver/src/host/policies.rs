//! The host's ValidatingAdmissionPolicies and their bindings, followed.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Resource;
use kube::runtime::watcher::{self, Event};

use super::{changes, reflect};
use crate::admission::policies::{Binding, Bound, Policies, Policy};

/// Policies that are compiled, by uid, each with the generation that it is of.
type Compiled = HashMap<String, (i64, Arc<Policy>)>;

/// Follows both, and puts in force what there is. Until both were read, no policy is known, and writes wait.
pub(super) async fn follow(host: &kube::Client, policies: &Policies) {
    let (own, mut of_policies) = reflect::<ValidatingAdmissionPolicy>(host);
    let (bindings, mut of_bindings) = reflect::<ValidatingAdmissionPolicyBinding>(host);
    let (mut policies_known, mut bindings_known) = (false, false);
    let mut compiled = Compiled::new();
    loop {
        // Both are cancel-safe.
        let changed = tokio::select! {
            Some(event) = of_policies.next() => are_others(event, &mut policies_known),
            Some(event) = of_bindings.next() => are_others(event, &mut bindings_known),
            else => return,
        };
        if changed && policies_known && bindings_known {
            let there = own.state();
            let known = std::mem::take(&mut compiled);
            let compiling = tokio::task::spawn_blocking(move || compile(&there, &known));
            match compiling.await {
                Ok(done) => compiled = done,
                Err(error) => {
                    tracing::error!(%error, "policies cannot be compiled; what was in force stays so");
                    continue;
                }
            }
            policies.publish(bound(&compiled, &bindings.state()));
        }
    }
}

/// Whether something is other than before.
fn are_others<K: Resource<DynamicType = ()>>(
    event: watcher::Result<Event<K>>,
    known: &mut bool,
) -> bool {
    match event {
        // Before Kubernetes 1.30 there are none.
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
            !std::mem::replace(known, true)
        }
        event => changes(event, known, "no write is taken"),
    }
}

/// Compiles the policies that are new, or of another generation.
fn compile(there: &[Arc<ValidatingAdmissionPolicy>], known: &Compiled) -> Compiled {
    let compiled = |policy: &Arc<ValidatingAdmissionPolicy>| {
        let uid = policy.metadata.uid.clone().unwrap_or_default();
        let generation = policy.metadata.generation.unwrap_or_default();
        let done = match known.get(&uid) {
            Some((of, done)) if *of == generation => Arc::clone(done),
            _ => Arc::new(Policy::new(policy)),
        };
        (uid, (generation, done))
    };
    there.iter().map(compiled).collect()
}

/// Each policy with its bindings, in the order of their names.
fn bound(compiled: &Compiled, bindings: &[Arc<ValidatingAdmissionPolicyBinding>]) -> Vec<Bound> {
    let mut bindings: Vec<Arc<Binding>> =
        bindings.iter().map(|binding| Arc::new(Binding::new(binding))).collect();
    bindings.sort_by(|a, b| a.name.cmp(&b.name));
    let with_bindings = |(_, policy): &(i64, Arc<Policy>)| Bound {
        policy: Arc::clone(policy),
        bindings: bindings.iter().filter(|it| it.policy == policy.name).cloned().collect(),
    };
    let mut bound: Vec<Bound> = compiled.values().map(with_bindings).collect();
    bound.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
    bound
}
