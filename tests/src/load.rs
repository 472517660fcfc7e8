//! Writers that count, and watchers that must see every number: through whatever is killed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubefed_controllers::client::{Client, Error};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::eventually;

/// The namespace of the load, and where its federated objects and what comes of them are.
pub const SPACE: &str = "load";
pub const MAPS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/load/federatedconfigmaps";
const MEMBER_MAPS: &str = "/api/v1/namespaces/load/configmaps";

const WRITERS: usize = 3;
/// Writes of one object, before the writer goes on with another.
const WRITES: u64 = 10;
/// From one write of a writer to its next: a load that leaves two cores time for what is tested.
const PACE: Duration = Duration::from_millis(80);
const LOOK: Duration = Duration::from_millis(20);

/// A FederatedConfigMap for every member.
pub fn federated_map(name: &str, n: u64) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": name},
        "spec": {"template": {"data": {"n": n.to_string()}}, "placement": {"clusterSelector": {}}},
    })
}

/// The number that a FederatedConfigMap has.
fn number(object: &Value) -> Option<u64> {
    object["spec"]["template"]["data"]["n"].as_str()?.parse().ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
}

/// By object: the numbers that were acknowledged in their order, each with its revision if that was heard of.
type Acknowledged = Arc<Mutex<BTreeMap<String, Vec<(u64, Option<u64>)>>>>;

/// What a watcher has seen.
#[derive(Default)]
struct Seen {
    /// By object: revision and number (or, in a member, the uid).
    objects: BTreeMap<String, Vec<(u64, Value)>>,
    /// What should not have been.
    wrong: Vec<String>,
}

/// The load, as long as it goes on.
pub struct Load {
    acknowledged: Acknowledged,
    writers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    /// One for each server, and one for each member.
    servers: Vec<Arc<Mutex<Seen>>>,
    members: Vec<Arc<Mutex<Seen>>>,
    at_each: Vec<Client>,
    _watchers: DropGuard,
}

impl Load {
    /// Begins to write as `admin`, and to watch at each server and each member.
    pub async fn start(admin: &Client, at_each: &[Client], members: &[Client]) -> Self {
        let (stop, ends) = (CancellationToken::new(), CancellationToken::new());
        let watch = async |path: &'static str, clients: Vec<Client>| {
            let list = clients[0].get(path).await.expect("a list");
            let from = text(&list["metadata"]["resourceVersion"]);
            let seen = Arc::<Mutex<Seen>>::default();
            let watcher = follow(clients, path, from, Arc::clone(&seen));
            tokio::spawn(ends.clone().run_until_cancelled_owned(watcher));
            seen
        };
        let mut at_servers = Vec::new();
        for server in 0..at_each.len() {
            let mut clients = at_each.to_vec();
            clients.rotate_left(server);
            at_servers.push(watch(MAPS, clients).await);
        }
        let mut at_members = Vec::new();
        for member in members {
            at_members.push(watch(MEMBER_MAPS, vec![member.clone()]).await);
        }
        let acknowledged = Acknowledged::default();
        let writers = (0..WRITERS).map(|writer| {
            let (client, acknowledged) = (admin.clone(), Arc::clone(&acknowledged));
            tokio::spawn(write(client, writer, acknowledged, stop.clone()))
        });
        Load {
            writers: writers.collect(),
            acknowledged,
            stop,
            servers: at_servers,
            members: at_members,
            at_each: at_each.to_vec(),
            _watchers: ends.drop_guard(),
        }
    }

    /// Waits until every writer has had some more writes acknowledged.
    pub async fn goes_on(&mut self) {
        let before: Vec<usize> = (0..WRITERS).map(|writer| self.writes_of(writer)).collect();
        eventually("every writer goes on", async || {
            self.check();
            (0..WRITERS).all(|w| self.writes_of(w) >= before[w] + 5).then_some(())
        })
        .await;
    }

    fn writes_of(&self, writer: usize) -> usize {
        let prefix = format!("w{writer}-");
        let acknowledged = self.acknowledged.lock();
        let of = acknowledged.iter().filter(|(name, _)| name.starts_with(&prefix));
        of.map(|(_, numbers)| numbers.len()).sum()
    }

    fn check(&self) {
        for seen in self.servers.iter().chain(&self.members) {
            assert_eq!(seen.lock().wrong, [""; 0]);
        }
        assert!(
            self.stop.is_cancelled() || self.writers.iter().all(|writer| !writer.is_finished())
        );
    }

    /// Stops to write, and compares what was acknowledged with what is there, and with what every watcher has seen.
    pub async fn end(self) {
        self.stop.cancel();
        self.check();
        for writer in self.writers {
            writer.await.expect("its writes were acknowledged");
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock());
        for seen in &self.servers {
            eventually("the watcher has seen the last number of each object", async || {
                let seen = seen.lock();
                let last = |name: &str| Some(seen.objects.get(name)?.last()?.1.clone());
                let mut all = acknowledged.iter();
                all.all(|(name, numbers)| last(name) == numbers.last().map(|(n, _)| json!(n)))
                    .then_some(())
            })
            .await;
            compare(&seen.lock(), &acknowledged);
        }
        for client in &self.at_each {
            let list = client.get(MAPS).await.expect("a list");
            let items = list["items"].as_array().expect("items").iter();
            let found: BTreeMap<String, Option<u64>> = items
                .map(|item| (text(&item["metadata"]["name"]), number(item)))
                .filter(|(name, _)| name != "edited")
                .collect();
            let wanted = acknowledged
                .iter()
                .map(|(name, numbers)| (name.clone(), numbers.last().map(|(number, _)| *number)));
            assert_eq!(found, wanted.collect());
        }
        for seen in &self.members {
            eventually("every object is in the member", async || {
                let seen = seen.lock();
                acknowledged.keys().all(|name| seen.objects.contains_key(name)).then_some(())
            })
            .await;
            let seen = seen.lock();
            assert_eq!(seen.wrong, [""; 0]);
            for (name, states) in &seen.objects {
                let uid = &states[0].1;
                assert!(states.iter().all(|(_, other)| other == uid), "{name} was made anew");
            }
        }
    }
}

/// What a watcher saw of each object: revisions that grow, every number once and in order (the controllers write too,
/// and change no number), and each acknowledged revision with its number.
fn compare(seen: &Seen, acknowledged: &BTreeMap<String, Vec<(u64, Option<u64>)>>) {
    assert_eq!(seen.wrong, [""; 0]);
    for (name, numbers) in acknowledged {
        let states = &seen.objects[name];
        assert!(states.is_sorted_by(|(a, _), (b, _)| a < b), "{name}: {states:?}");
        let mut told: Vec<&Value> = states.iter().map(|(_, number)| number).collect();
        told.dedup();
        let wanted: Vec<Value> = numbers.iter().map(|(number, _)| json!(number)).collect();
        assert_eq!(told, wanted.iter().collect::<Vec<_>>(), "{name}");
        for (number, revision) in numbers {
            let Some(revision) = revision else { continue };
            let found = states.iter().filter(|state| **state == (*revision, json!(number)));
            assert_eq!(found.count(), 1, "{name}: {number} at {revision} in {states:?}");
        }
    }
}

/// Writes one object after the other, each some times, until `stop` is cancelled.
async fn write(client: Client, writer: usize, acknowledged: Acknowledged, stop: CancellationToken) {
    let mut pace = tokio::time::interval(PACE);
    // What was not written in time is not written all at once then.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for object in 0.. {
        let name = format!("w{writer}-{object}");
        for n in 0..WRITES {
            pace.tick().await;
            if stop.is_cancelled() {
                return;
            }
            let revision = write_surely(&client, &name, n).await;
            acknowledged.lock().entry(name.clone()).or_default().push((n, revision));
        }
    }
}

/// Writes a number until that is acknowledged. A write whose outcome is not known is looked for before the next attempt;
/// it may be there, at a revision that is not known then.
async fn write_surely(client: &Client, name: &str, n: u64) -> Option<u64> {
    let (object, path) = (federated_map(name, n), format!("{MAPS}/{name}"));
    loop {
        let written = match n {
            0 => client.create(MAPS, &object).await,
            _ => client.merge(&path, &json!({"spec": object["spec"]})).await,
        };
        match written {
            Ok(written) => return Some(revision(&written)),
            Err(error) => assert!(error.is_outage() || error.is_conflict(), "{name}: {error}"),
        }
        loop {
            match client.get(&path).await {
                Ok(found) if number(&found) == Some(n) => return None,
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => assert!(error.is_outage(), "{name}: {error}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Watches at the first of the servers; where that breaks, at the next one after what was last seen.
async fn follow(servers: Vec<Client>, path: &str, mut from: String, seen: Arc<Mutex<Seen>>) {
    for client in servers.iter().cycle() {
        if let Ok(mut watch) = client.watch(path, "", "application/json", &from).await {
            while let Some(Ok(event)) = watch.next().await {
                let (kind, object) = (event["type"].as_str().unwrap_or(""), &event["object"]);
                match kind {
                    "ADDED" | "MODIFIED" => {
                        let state = match number(object) {
                            Some(number) => json!(number),
                            None => object["metadata"]["uid"].clone(),
                        };
                        let name = text(&object["metadata"]["name"]);
                        let mut seen = seen.lock();
                        seen.objects.entry(name).or_default().push((revision(object), state));
                    }
                    "BOOKMARK" => {}
                    "ERROR" if is_outage(object) => break,
                    _ => {
                        seen.lock().wrong.push(event.to_string());
                        return;
                    }
                }
                from = text(&object["metadata"]["resourceVersion"]);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a watch ended because of the server rather than of what was asked.
fn is_outage(status: &Value) -> bool {
    let status = serde_json::from_value(status.clone()).unwrap_or_default();
    Error::Status(Box::new(status)).is_outage()
}
