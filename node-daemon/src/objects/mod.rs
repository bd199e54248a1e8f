//! What the API says, as this node last saw it: the objects of the namespaces it serves.
//!
//! ```text
//! own HypervisorNode ──namespaces──► one watch per kind and namespace ──► shelves ──► Objects (cheap handle)
//! ```
//!
//! Invariants: an object that is not here is *unknown*, never a command. DELETED, 404, an empty list and lost rights all
//! look the same, and nothing is removed because of them. What was seen stays readable while the API
//! is away. Called by the vm driver and the node report.

mod changes;
mod events;
mod follow;
mod secret;
mod serve;
mod shelf;
mod status;
mod unread;

use std::sync::Arc;

use holdfast_api::{HypervisorNode, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork};
use kube::Client;
use tokio::sync::{mpsc, watch};

pub(crate) use changes::Changed;
pub(crate) use events::Severity;
pub(crate) use secret::KeptSecret;

use crate::config::NodeName;
use crate::contact::Contact;
use changes::Changes;
use events::Note;
use shelf::Shelf;
use unread::Unread;

/// The client of the node's own identity; `None` until it is enrolled. It changes with each certificate.
pub(crate) type Session = watch::Receiver<Option<Client>>;

/// What is known of an object somebody refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup<T> {
    /// Seen, perhaps a while ago when the API is away.
    Found(T),
    /// The list is complete and current, and it is not there.
    Missing,
    /// Never read, or the API is away or refuses: nobody can say.
    Unknown,
}

/// Cheap handle to the objects of this node.
#[derive(Clone)]
pub(crate) struct Objects(Arc<Inner>);

struct Inner {
    node: NodeName,
    session: Session,
    contact: watch::Receiver<Contact>,
    own: watch::Sender<Option<Arc<HypervisorNode>>>,
    virtual_machines: Shelf<VirtualMachine>,
    images: Shelf<VirtualMachineImage>,
    networks: Shelf<VirtualMachineNetwork>,
    ssh_keys: Shelf<SSHKey>,
    changes: Changes,
    written: status::Written,
    notes: mpsc::Sender<Note>,
    unread: Unread,
}

impl Objects {
    /// A handle with nothing on its shelves, and the task that fills them; spawn it once.
    pub(crate) fn new(
        node: NodeName,
        session: Session,
        contact: watch::Receiver<Contact>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (notes, queue) = mpsc::channel(events::QUEUE);
        let objects = Self(Arc::new(Inner {
            node,
            session,
            contact,
            own: watch::Sender::new(None),
            virtual_machines: Shelf::default(),
            images: Shelf::default(),
            networks: Shelf::default(),
            ssh_keys: Shelf::default(),
            changes: Changes::default(),
            written: status::Written::default(),
            unread: Unread::new(notes.clone()),
            notes,
        }));
        let served = objects.clone();
        (objects, async move {
            tokio::join!(
                serve::run(&served),
                events::publish(&served, queue),
                serve::ring_on_return(&served)
            );
        })
    }

    /// The virtual machine with this UID, if it was seen bound to this node.
    pub(crate) fn virtual_machine(&self, uid: &str) -> Option<Arc<VirtualMachine>> {
        self.0.virtual_machines.find(|vm| vm.metadata.uid.as_deref() == Some(uid))
    }

    /// All virtual machines seen bound to this node.
    pub(crate) fn virtual_machines(&self) -> Vec<Arc<VirtualMachine>> {
        self.0.virtual_machines.all()
    }

    /// An image of a namespace this node serves.
    pub(crate) fn image(&self, namespace: &str, name: &str) -> Lookup<Arc<VirtualMachineImage>> {
        self.0.images.lookup(namespace, name, self.reachable())
    }

    /// A network of a namespace this node serves.
    pub(crate) fn network(&self, namespace: &str, name: &str) -> Lookup<Arc<VirtualMachineNetwork>> {
        self.0.networks.lookup(namespace, name, self.reachable())
    }

    /// An SSH key of a namespace this node serves.
    pub(crate) fn ssh_key(&self, namespace: &str, name: &str) -> Lookup<Arc<SSHKey>> {
        self.0.ssh_keys.lookup(namespace, name, self.reachable())
    }

    /// How many objects cannot be read whole.
    pub(crate) fn unreadable(&self) -> usize {
        self.0.unread.count()
    }

    /// Whether the API answered this identity lately (the Lease is renewed every 10 s).
    pub(crate) fn reachable(&self) -> bool {
        matches!(*self.0.contact.borrow(), Contact::Reachable)
    }

    /// Whether a namespace's virtual machines were listed whole at least once with the present rights.
    pub(crate) fn synced(&self, namespace: &str) -> bool {
        self.0.virtual_machines.synced(namespace)
    }

    /// The node's own object; `None` until it was read.
    pub(crate) fn own(&self) -> watch::Receiver<Option<Arc<HypervisorNode>>> {
        self.0.own.subscribe()
    }

    /// Waits for changes and takes them; those that came meanwhile are folded together. For one consumer.
    pub(crate) async fn changed(&self) -> Changed {
        self.0.changes.take().await
    }
}
