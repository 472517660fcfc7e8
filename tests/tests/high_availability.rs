//! Three API servers over an etcd of three, two controller managers, two members: any one of them is killed under load.
//! Nothing that was acknowledged is lost, no event of a watch is lost or doubled, and the members notice nothing.

use std::time::Duration;

use jiff::Timestamp;
use kubefed_controllers::client::Client;
use kubefed_tests::etcd::{Etcd, an_etcd_of};
use kubefed_tests::load::{Load, MAPS, SPACE, federated_map};
use kubefed_tests::process::Process;
use kubefed_tests::replicas::Replicas;
use kubefed_tests::{
    Cluster, NAMESPACE, a_member, a_namespace_everywhere, eventually, federated_config, join_by,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// That of KubeFed's defaults.
const LEASE: Duration = Duration::from_secs(15);
/// Between two looks of a candidate, which one that follows the Lease need not wait for.
const RETRY: Duration = Duration::from_secs(5);
const SERVERS: usize = 3;

/// Everything that can be killed, and what must not notice.
struct Federation {
    etcd: Etcd,
    servers: Replicas,
    managers: Vec<Process>,
    /// How often each manager has led.
    led: Vec<usize>,
    members: Vec<Cluster>,
    admin: Client,
    edits: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_under_load_nothing_acknowledged_is_lost_and_no_event() {
    let Some(etcd) = an_etcd_of(3).await else { return };
    let mut all = Federation::start(etcd).await;
    a_write_through_one_server_is_seen_by_a_watch_on_another(&all.servers).await;
    let untouched = all.put_what_is_not_ours().await;
    let at_each: Vec<Client> = (0..SERVERS).map(|server| all.servers.admin_at(server)).collect();
    let members: Vec<Client> = all.members.iter().map(Cluster::admin).collect();
    let mut load = Load::start(&all.admin, &at_each, &members).await;
    load.goes_on().await;

    for server in 0..SERVERS {
        all.servers.apiservers[server].kill();
        load.goes_on().await;
        all.edit_reaches_the_members().await;
        all.servers.apiservers[server].start();
        all.servers.wait_ready(server).await;
    }

    let leader = all.leader().await;
    all.wait_for_a_renewal_of_some_age().await;
    let killed = Instant::now();
    all.managers[leader].kill();
    all.next_leads(1 - leader).await;
    assert!(killed.elapsed() <= LEASE, "the standby leads after {:?}", killed.elapsed());
    all.edit_reaches_the_members().await;
    load.goes_on().await;

    all.managers[leader].start();
    all.stands_by(leader).await;
    let told = Instant::now();
    let ended = all.managers[1 - leader].end().await;
    assert!(ended.success(), "{}", all.managers[1 - leader].log());
    all.next_leads(leader).await;
    assert!(told.elapsed() < RETRY, "the standby leads after {:?}", told.elapsed());
    all.edit_reaches_the_members().await;

    let leader = all.etcd.leader().await;
    all.etcd.kill(leader);
    load.goes_on().await;
    all.edit_reaches_the_members().await;
    all.etcd.restart(leader).await;
    load.goes_on().await;

    load.end().await;
    assert_eq!(all.what_is_not_ours().await, untouched);
}

async fn a_write_through_one_server_is_seen_by_a_watch_on_another(servers: &Replicas) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for (here, there) in [(0, 1), (1, 2), (2, 0)] {
        let (one, other) = (servers.admin_at(here), servers.admin_at(there));
        let list = other.get(&path).await.expect("a list");
        let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
        let mut watch = other.watch(&path, "", "application/json", from).await.expect("a watch");
        let name = format!("from-{here}-to-{there}");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let created = one.create(&path, &map).await.expect("created");
        let event = watch.next().await.expect("the watch goes on").expect("an event");
        assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &created));
        let read = other.get(&format!("{path}/{name}")).await.expect("it is there");
        assert_eq!(read, created);
    }
}

impl Federation {
    async fn start(etcd: Etcd) -> Self {
        let servers = Replicas::standing_alone(SERVERS, &etcd.options().endpoints).await;
        let admin = servers.admin();
        for name in ["namespaces", "configmaps"] {
            let configs = format!(
                "/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs"
            );
            admin.create(&configs, &federated_config(name)).await.expect("created");
        }
        let managers = vec![servers.manager("one"), servers.manager("two")];
        let mut members = Vec::new();
        for name in ["cluster1", "cluster2"] {
            let member = a_member().await;
            join_by(&admin.clone().into(), name, &member.url(), &member).await;
            members.push(member);
        }
        // Each server serves the kinds of the configs when it has seen them.
        for server in 0..SERVERS {
            let at = servers.admin_at(server);
            for kind in ["federatedconfigmaps", "federatednamespaces"] {
                let path = format!("/apis/types.kubefed.io/v1beta1/{kind}");
                eventually("the kind is served", async || at.get(&path).await.ok()).await;
            }
        }
        a_namespace_everywhere(&admin, SPACE).await;
        admin.create(MAPS, &federated_map("edited", 0)).await.expect("created");
        let mut all =
            Federation { etcd, servers, managers, led: vec![0, 0], members, admin, edits: 0 };
        all.edit_reaches_the_members().await;
        all
    }

    /// An edit of a federated object is in every member.
    async fn edit_reaches_the_members(&mut self) {
        self.edits += 1;
        let edit = json!({"spec": federated_map("edited", self.edits)["spec"]});
        eventually("the edit is acknowledged", async || {
            self.admin.merge(&format!("{MAPS}/edited"), &edit).await.ok()
        })
        .await;
        let wanted = self.edits.to_string();
        for member in &self.members {
            let member = member.admin();
            eventually("the edit is in the member", async || {
                let path = format!("/api/v1/namespaces/{SPACE}/configmaps/edited");
                let found = member.get(&path).await.ok()?;
                (found["data"]["n"] == wanted.as_str()).then_some(())
            })
            .await;
        }
    }

    /// Objects in the members that the federation has nothing to do with.
    async fn put_what_is_not_ours(&self) -> Vec<Value> {
        for member in &self.members {
            let path = format!("/api/v1/namespaces/{SPACE}/configmaps");
            let theirs = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"n": "theirs"},
            });
            member.admin().create(&path, &theirs).await.expect("created");
        }
        self.what_is_not_ours().await
    }

    async fn what_is_not_ours(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for member in &self.members {
            let path = format!("/api/v1/namespaces/{SPACE}/configmaps/theirs");
            found.push(member.admin().get(&path).await.expect("it is there"));
        }
        found
    }

    /// The number of the manager that leads.
    async fn leader(&mut self) -> usize {
        let leader = eventually("a manager leads", async || {
            (0..2).find(|&manager| promotions(&self.managers[manager]) > self.led[manager])
        })
        .await;
        self.led[leader] += 1;
        leader
    }

    async fn next_leads(&mut self, manager: usize) {
        assert_eq!(self.leader().await, manager);
    }

    /// Waits until a manager that was started knows whose turn it is.
    async fn stands_by(&mut self, manager: usize) {
        let log = self.managers[manager].log().len();
        // It says where it serves before it asks for the lease.
        eventually("it is started", async || {
            (self.managers[manager].log().len() > log).then_some(())
        })
        .await;
        let lease = self.lease().await;
        eventually("the lease is renewed meanwhile", async || {
            (self.lease().await["spec"]["renewTime"] != lease["spec"]["renewTime"]).then_some(())
        })
        .await;
    }

    /// Waits until the last renewal is some seconds old: what is left of the lease then is less than all of it.
    async fn wait_for_a_renewal_of_some_age(&self) {
        eventually("a renewal is some seconds old", async || {
            let lease = self.lease().await;
            let renewed: Timestamp = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
            let age = Timestamp::now().duration_since(renewed);
            (age.as_secs() >= 2).then_some(())
        })
        .await;
    }

    async fn lease(&self) -> Value {
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kubefed-controller-manager"
        );
        eventually("the lease can be read", async || self.admin.get(&path).await.ok()).await
    }
}

fn promotions(manager: &Process) -> usize {
    manager.log().matches("promoted as leader").count()
}
