//! Which namespaces the node serves, and the watches of each: started and stopped as the own `HypervisorNode` says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use holdfast_api::{HypervisorNode, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork};
use holdfast_client::{Event, Raw, Read, watch};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::follow::{RESYNC, config, follow};
use super::unread::Unread;
use super::{Changes, Objects, Shelf};
use crate::contact::Contact;
use crate::jitter;

/// Serves for ever: everything anew with each client, since the old one's certificate may be refused.
pub(super) async fn run(objects: &Objects) {
    let mut session = objects.0.session.clone();
    loop {
        let client = session.borrow_and_update().clone();
        let serving = async {
            match client {
                Some(client) => tokio::join!(own(objects, client.clone()), namespaces(objects, client)).0,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serving => {}
            changed = session.changed() => if changed.is_err() { return },
        }
    }
}

/// Rings for everything when the API answers again: what was found meanwhile waits to be reported.
pub(super) async fn ring_on_return(objects: &Objects) {
    let mut contact = objects.0.contact.clone();
    while contact.changed().await.is_ok() {
        if *contact.borrow_and_update() == Contact::Reachable {
            objects.0.changes.all();
        }
    }
}

/// Follows the node's own object. When it vanishes, the last one seen stays in force: absence is not a command.
async fn own(objects: &Objects, client: Client) {
    let api = holdfast_client::all::<HypervisorNode>(client);
    loop {
        // The time-out is the resync: the stream itself never ends.
        if timeout(jitter::spread(RESYNC), own_once(objects, api.clone())).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn own_once(objects: &Objects, api: Api<Raw>) {
    let asked = config().fields(&format!("metadata.name={}", objects.0.node));
    let mut events = std::pin::pin!(watch(api, asked));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => {
                if let Some(node) = objects.own_node(node) {
                    objects.0.own.send_replace(Some(Arc::new(node)));
                }
            }
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
            Err(error) => log_failure(&error),
        }
    }
}

fn log_failure(error: &watcher::Error) {
    debug!(%error, "watch of the own HypervisorNode failed; it is tried again");
}

async fn namespaces(objects: &Objects, client: Client) {
    let mut own = objects.own();
    let mut watches: HashMap<String, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        if let Some(node) = own.borrow_and_update().clone() {
            adjust(objects, &client, &mut watches, served(&node));
        }
        if own.changed().await.is_err() {
            return;
        }
    }
}

fn served(node: &HypervisorNode) -> &[String] {
    node.status.as_ref().map_or(&[], |status| &status.namespaces)
}

fn adjust(
    objects: &Objects,
    client: &Client,
    watches: &mut HashMap<String, AbortOnDropHandle<()>>,
    served: &[String],
) {
    watches.retain(|namespace, _| {
        let kept = served.contains(namespace);
        if !kept {
            objects.forget(namespace);
        }
        kept
    });
    for namespace in served {
        watches.entry(namespace.clone()).or_insert_with(|| {
            info!(namespace, "serving a namespace");
            AbortOnDropHandle::new(tokio::spawn(serve(objects.clone(), client.clone(), namespace.clone())))
        });
    }
}

impl Objects {
    /// The node's own object as far as it can be acted on: which namespaces it serves and who it is must be known. Of what a
    /// person or the controller asks beyond that, what could not be read is not asked.
    fn own_node(&self, read: Read<HypervisorNode>) -> Option<HypervisorNode> {
        let Read { object, faults } = read;
        self.0.unread.name(&object, &faults);
        let known = !faults.touch("metadata") && !faults.touch("status.namespaces");
        known.then_some(object)
    }

    /// The node serves a namespace no longer: its objects are unknown from now on.
    fn forget(&self, namespace: &str) {
        info!(namespace, "no longer serving a namespace");
        self.0.virtual_machines.drop_namespace(namespace);
        self.0.images.drop_namespace(namespace);
        self.0.networks.drop_namespace(namespace);
        self.0.ssh_keys.drop_namespace(namespace);
        self.0.unread.keep(None, namespace, |_| false);
        self.0.changes.all();
    }
}

async fn serve(objects: Objects, client: Client, namespace: String) {
    let inner = &objects.0;
    let bound_here = config().fields(&format!("status.nodeName={}", inner.node));
    let vms = holdfast_client::namespaced::<VirtualMachine>(client.clone(), &namespace);
    tokio::join!(
        follow(vms, bound_here, (&inner.virtual_machines, &namespace, &inner.unread), |before, after| {
            objects.announce(before, after);
        }),
        referred::<VirtualMachineImage>(&client, (&inner.images, &namespace, &inner.unread), &inner.changes),
        referred::<VirtualMachineNetwork>(
            &client,
            (&inner.networks, &namespace, &inner.unread),
            &inner.changes
        ),
        referred::<SSHKey>(&client, (&inner.ssh_keys, &namespace, &inner.unread), &inner.changes),
    );
}

/// Follows a kind that virtual machines refer to: only a new spec is of interest.
async fn referred<K>(client: &Client, place: (&Shelf<K>, &str, &Unread), changes: &Changes)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone,
    K: Default + serde::de::DeserializeOwned + Send + 'static,
{
    let api = holdfast_client::namespaced::<K>(client.clone(), place.1);
    follow(api, config(), place, |before, after| {
        if version(before) != version(after) {
            changes.all();
        }
    })
    .await;
}

/// What tells one spec from another.
fn version<K: Resource>(item: Option<&K>) -> Option<(Option<String>, Option<i64>)> {
    item.map(|item| (item.meta().uid.clone(), item.meta().generation))
}
