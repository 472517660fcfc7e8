//! `check`: one line for each thing that must be right, with what to do where it isn't. Facts are fetched here; what
//! they mean is decided by pure functions.

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::kubefedconfig;
use serde_json::{Value, json};

use crate::plane::{HostOptions, PlaneOptions};
use crate::rest::{self, Cluster};
use crate::{plane, say};

mod clusters;
mod control;
mod servers;
mod types;

/// Flags of `check`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    plane: PlaneOptions,
    /// The form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    outcome: Outcome,
    check: String,
    message: String,
    /// What to do; empty if all is well.
    remedy: String,
}

impl Finding {
    fn ok(check: impl Into<String>, message: impl Into<String>) -> Self {
        Finding {
            outcome: Outcome::Ok,
            check: check.into(),
            message: message.into(),
            remedy: String::new(),
        }
    }

    fn warn(
        check: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            outcome: Outcome::Warn,
            check: check.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn fail(
        check: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            outcome: Outcome::Fail,
            check: check.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn line(&self, width: usize) -> String {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut line = format!(
            "{:<4}  {:<width$}  {}",
            self.outcome.as_str(),
            self.check,
            one_line(&self.message)
        );
        if !self.remedy.is_empty() {
            line += &format!(" -> {}", one_line(&self.remedy));
        }
        line
    }

    fn value(&self) -> Value {
        let mut value =
            json!({"check": self.check, "outcome": self.outcome.as_str(), "message": self.message});
        if !self.remedy.is_empty() {
            value["remedy"] = json!(self.remedy);
        }
        value
    }
}

/// Checks; fails if anything does. Warnings are no failure.
pub(crate) async fn check(options: &Options) -> anyhow::Result<()> {
    let findings = findings(options).await;
    let worst = findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Ok);
    let document = || {
        let checks: Vec<Value> = findings.iter().map(Finding::value).collect();
        json!({"outcome": worst.as_str(), "checks": checks})
    };
    match options.output {
        Output::Json => say(&format!("{:#}", document())),
        Output::Yaml => say(serde_saphyr::to_string(&document())?.trim_end()),
        Output::Text => {
            let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
            findings.iter().for_each(|finding| say(&finding.line(width)));
        }
    }
    match findings.iter().filter(|finding| finding.outcome == Outcome::Fail).count() {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        count => bail!("{count} checks failed"),
    }
}

async fn findings(options: &Options) -> Vec<Finding> {
    let (cluster, context) = match connect(&options.plane.host).await {
        Ok(connected) => connected,
        Err(error) => {
            let remedy =
                "point KUBECONFIG, or --kubeconfig and --host-cluster-context, at the federation";
            return vec![Finding::fail("kubeconfig", format!("{error:#}"), remedy)];
        }
    };
    let server = cluster.entry.server.as_deref().unwrap_or("");
    let mut findings = vec![Finding::ok("kubeconfig", format!("context {context} is {server}"))];
    let reached = servers::api_server(&cluster).await;
    let unreachable = reached.outcome == Outcome::Fail;
    findings.push(reached);
    findings.extend(servers::certificates(&cluster).await);
    if unreachable {
        return findings;
    }
    findings.extend(servers::ready(cluster.text("/readyz?verbose").await));
    let namespace = &options.plane.kubefed_namespace;
    let core = |plural: &str| plane::core(namespace, plural);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let now = Timestamp::now();
    let config = cluster.find(&format!("{}/{}", core("kubefedconfigs"), kubefedconfig::NAME)).await;
    let lease = cluster.find(&format!("{leases}/kubefed-controller-manager")).await;
    findings.push(control::config(config, namespace, lease.as_ref().ok().and_then(Option::as_ref)));
    findings.push(control::leader(lease, now));
    findings.extend(clusters::all(cluster.list(&core("kubefedclusters")).await, now));
    match cluster.list(&plane::type_configs(namespace)).await {
        Ok(configs) if configs.is_empty() => findings.push(Finding::warn(
            "types",
            format!("no kind is federated: namespace {namespace} has no FederatedTypeConfig"),
            "create FederatedTypeConfigs for the kinds to federate",
        )),
        Ok(configs) => {
            for config in configs {
                findings.extend(federated_type(&cluster, &config).await);
            }
        }
        Err(error) => findings.push(Finding::fail(
            "types",
            error.to_string(),
            "see whether you may list them",
        )),
    }
    findings
}

/// The federation and the context that leads to it.
async fn connect(host: &HostOptions) -> anyhow::Result<(Cluster, String)> {
    let kubeconfig = rest::kubeconfig(host.kubeconfig.as_deref())?;
    let context = rest::host_context(&kubeconfig, host.host_cluster_context.as_deref())?;
    Ok((Cluster::connect(&kubeconfig, context).await?, context.to_owned()))
}

/// A type, and those of its objects that don't propagate.
async fn federated_type(cluster: &Cluster, config: &Value) -> Vec<Finding> {
    let parsed = match FederatedTypeConfig::from_value(config) {
        Ok(parsed) => parsed,
        Err(why) => {
            let name = config["metadata"]["name"].as_str().unwrap_or("");
            return vec![Finding::fail(
                format!("type {name}"),
                why,
                "correct the FederatedTypeConfig",
            )];
        }
    };
    let federated = &parsed.federated;
    let path = format!("/apis/{}/{}", federated.api_version(), federated.plural_name);
    let objects = cluster.list(&path).await;
    types::findings(&parsed, config, &objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::fail("cluster a", "two\nlines", "do it");
        assert_eq!(finding.line(10), "fail  cluster a   two lines -> do it");
        assert_eq!(Finding::ok("x", "fine").line(1), "ok    x  fine");
    }

    #[test]
    fn the_worst_outcome_is_the_greatest() {
        assert!(Outcome::Fail > Outcome::Warn && Outcome::Warn > Outcome::Ok);
    }
}
