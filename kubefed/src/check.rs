//! `check`: one line for each thing that can be wrong, with what to do about it.

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kubefed_api::SYSTEM_NAMESPACE;
use kubefed_apimachinery::time;
use serde_json::{Value, json};

use crate::rest::{self, Cluster};
use crate::say;

/// Flags of `check`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The kubeconfig
    #[arg(long)]
    kubeconfig: Option<std::path::PathBuf>,
    /// The context of the federation; the current one if left out
    #[arg(long)]
    host_cluster_context: Option<String>,
    /// The namespace of the control plane
    #[arg(long, default_value = SYSTEM_NAMESPACE)]
    kubefed_namespace: String,
    /// The form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

struct Finding {
    check: String,
    level: Level,
    message: String,
}

fn finding(check: impl Into<String>, level: Level, message: impl Into<String>) -> Finding {
    Finding { check: check.into(), level, message: message.into() }
}

/// Checks; fails if anything does.
pub(crate) async fn check(options: &Options) -> anyhow::Result<()> {
    let findings = findings(options).await;
    match options.output {
        Output::Json => {
            let all: Vec<Value> = findings
                .iter()
                .map(|f| json!({"check": f.check, "level": f.level.name(), "message": f.message}))
                .collect();
            say(&format!("{:#}", Value::Array(all)));
        }
        Output::Text => {
            let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
            for found in &findings {
                say(&format!(
                    "{:<4}  {:<width$}  {}",
                    found.level.name(),
                    found.check,
                    found.message
                ));
            }
        }
    }
    match findings.iter().filter(|found| found.level == Level::Fail).count() {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        count => bail!("{count} checks failed"),
    }
}

async fn findings(options: &Options) -> Vec<Finding> {
    let config = match rest::kubeconfig(options.kubeconfig.as_deref()) {
        Ok(config) => config,
        Err(error) => return vec![finding("kubeconfig", Level::Fail, format!("{error:#}"))],
    };
    let Some(context) =
        options.host_cluster_context.clone().or_else(|| config.current_context.clone())
    else {
        return vec![finding(
            "kubeconfig",
            Level::Fail,
            "there is no current context: give --host-cluster-context",
        )];
    };
    let host = match Cluster::connect(&config, &context).await {
        Ok(host) => host,
        Err(error) => return vec![finding("kubeconfig", Level::Fail, format!("{error:#}"))],
    };
    let mut found = Vec::new();
    match host.text("/readyz?verbose").await {
        Ok(_) => found.push(finding("api server", Level::Ok, format!("ready, context {context}"))),
        Err(error) => {
            found.push(finding(
                "api server",
                Level::Fail,
                format!("{error}; is it running? (kubefed up)"),
            ));
            return found;
        }
    }
    let now = Timestamp::now();
    let core = format!("/apis/core.kubefed.io/v1beta1/namespaces/{}", options.kubefed_namespace);
    found.push(match host.get(&format!("{core}/kubefedconfigs/kubefed")).await {
        Ok(_) => finding("config", Level::Ok, "KubeFedConfig kubefed is there"),
        Err(error) if error.code == 404 => finding(
            "config",
            Level::Warn,
            "there is no KubeFedConfig kubefed; the controller manager makes one",
        ),
        Err(error) => finding("config", Level::Fail, error.to_string()),
    });
    let lease = format!(
        "/apis/coordination.k8s.io/v1/namespaces/{}/leases/kubefed-controller-manager",
        options.kubefed_namespace
    );
    found.push(leader(host.get(&lease).await.ok().as_ref(), now));
    match items(&host, &format!("{core}/kubefedclusters")).await {
        Ok(clusters) if clusters.is_empty() => {
            found.push(finding("clusters", Level::Warn, "none is joined (kubefed join)"))
        }
        Ok(clusters) => found.extend(clusters.iter().map(cluster)),
        Err(why) => found.push(finding("clusters", Level::Fail, why)),
    }
    let configs = match items(&host, &format!("{core}/federatedtypeconfigs")).await {
        Ok(configs) => configs,
        Err(why) => {
            found.push(finding("types", Level::Fail, why));
            return found;
        }
    };
    for config in &configs {
        found.extend(type_config(&host, config).await);
    }
    found
}

async fn items(host: &Cluster, path: &str) -> Result<Vec<Value>, String> {
    let mut list = host.get(path).await.map_err(|error| error.to_string())?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn leader(lease: Option<&Value>, now: Timestamp) -> Finding {
    let remedy = "no controller manager leads: is one running?";
    let Some(lease) = lease else { return finding("leader", Level::Fail, remedy) };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or("");
    let seconds = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or(15);
    let renewed = lease["spec"]["renewTime"].as_str().and_then(time::parse);
    match renewed {
        Some(at) if !holder.is_empty() && now.as_second() - at.as_second() <= seconds => {
            finding("leader", Level::Ok, holder)
        }
        _ => finding("leader", Level::Fail, remedy),
    }
}

fn cluster(cluster: &Value) -> Finding {
    let name = format!("cluster {}", cluster["metadata"]["name"].as_str().unwrap_or(""));
    let condition =
        cluster["status"]["conditions"].as_array().and_then(|conditions| conditions.first());
    let message = condition
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or("it was not probed yet");
    let version = cluster["status"]["kubernetesVersion"].as_str().unwrap_or("");
    if kubefed_api::kubefedcluster::is_ready(cluster) {
        finding(name, Level::Ok, format!("ready {version}").trim_end())
    } else {
        finding(name, Level::Fail, message)
    }
}

/// Whether a kind is synced, and which of its objects are not propagated.
async fn type_config(host: &Cluster, config: &Value) -> Vec<Finding> {
    let name = format!("type {}", config["metadata"]["name"].as_str().unwrap_or(""));
    if config["spec"]["propagation"] != "Enabled" {
        return vec![finding(name, Level::Warn, "propagation is disabled")];
    }
    if config["status"]["propagationController"] != "Running" {
        return vec![finding(
            name,
            Level::Fail,
            "propagation is enabled but does not run: see the controller manager's log",
        )];
    }
    let kind = &config["spec"]["federatedType"];
    let text = |field: &str| kind[field].as_str().unwrap_or("");
    let path = format!("/apis/{}/{}/{}", text("group"), text("version"), text("pluralName"));
    match items(host, &path).await {
        Err(why) => vec![finding(name, Level::Fail, why)],
        Ok(objects) => {
            let failing = objects.iter().filter_map(unpropagated);
            let mut found = vec![finding(name, Level::Ok, format!("{} objects", objects.len()))];
            found.extend(failing.map(|(object, why)| {
                finding(format!("{} {object}", text("kind")), Level::Warn, why)
            }));
            found
        }
    }
}

/// The name of an object that is not propagated, and why.
fn unpropagated(object: &Value) -> Option<(String, String)> {
    let condition = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Propagation");
    if condition.is_some_and(|condition| condition["status"] == "True") {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let name =
        format!("{}/{}", text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let mut why = condition.map_or_else(
        || "no status yet".into(),
        |c| format!("{} {}", text(&c["reason"]), text(&c["message"])),
    );
    for cluster in object["status"]["clusters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| c["status"].is_string())
    {
        why += &format!(
            "; {}: {} {}",
            text(&cluster["name"]),
            text(&cluster["status"]),
            text(&cluster["message"])
        );
    }
    Some((name, why.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_not_renewed_has_no_leader() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let lease = |at: &str| json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": at}});
        assert_eq!(leader(Some(&lease("2024-01-01T00:00:50.000000Z")), now).level, Level::Ok);
        assert_eq!(leader(Some(&lease("2024-01-01T00:00:40.000000Z")), now).level, Level::Fail);
        assert_eq!(leader(None, now).level, Level::Fail);
    }

    #[test]
    fn an_object_says_where_it_is_not() {
        let object = json!({
            "metadata": {"namespace": "ns", "name": "a"},
            "status": {
                "conditions": [{"type": "Propagation", "status": "False", "reason": "CheckClusters"}],
                "clusters": [{"name": "c1"}, {"name": "c2", "status": "UpdateFailed", "message": "no"}],
            },
        });
        assert_eq!(
            unpropagated(&object),
            Some(("ns/a".into(), "CheckClusters ; c2: UpdateFailed no".into()))
        );
    }
}
