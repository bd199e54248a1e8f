//! The hypervisor, through libvirt: the one module that names the `virt` crate.
//!
//! ```text
//! Libvirt (cheap handle) ─► actor: 4 threads, order per domain ─► link: the connection, opened again when it breaks
//!          └─ reach: does it answer? ◄────────────────────────────────┤  asked every 5 s by a thread of its own
//!                                                                     └─ callbacks ─► Events (a bounded stream)
//! ```
//! Calls read or change one thing and decide nothing; each has a limit after which its caller goes on. Everything a call
//! needs travels by value, so it may outlive its caller. `vm/observe` and `vm/execute` are the callers.

#![expect(clippy::disallowed_types, reason = "this is the module that clippy.toml keeps them in")]

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

mod actor;
mod domain;
pub(crate) mod domain_xml;
mod error;
mod events;
mod ffi;
#[cfg(test)]
mod golden;
mod host;
mod link;
mod network;
pub(crate) mod network_xml;
mod queue;
mod read;
#[cfg(test)]
pub(crate) mod samples;
mod state;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod xml;

pub(crate) use domain::{Domain, Lease, StartPaused};
pub(crate) use error::{Error, Fault, REMEDY};
pub(crate) use events::{Event, Events};
pub(crate) use host::HostInfo;
pub(crate) use link::Reach;
pub(crate) use network::Network;
pub(crate) use state::{DomainState, PausedReason, ShutOffReason};

use actor::{Actor, Call, Subject};

/// Reads answer from libvirtd's memory in milliseconds; 15 s is a machine in trouble.
const READ: Duration = Duration::from_secs(15);
/// The first define after an upgrade of QEMU makes libvirtd probe the emulator: seconds, and 90 s were seen on a loaded
/// machine without KVM.
const DEFINE: Duration = Duration::from_secs(180);
/// A start waits for QEMU to come up (0.3 s idle, 5 s loaded) and may meet the same probing.
const START: Duration = Duration::from_secs(180);
/// Destroy asks QEMU to end, then kills it after 30 s if it hangs on a dead disk.
const STOP: Duration = Duration::from_secs(60);
/// The other changes are one message to QEMU or one file.
const CHANGE: Duration = Duration::from_secs(30);

/// A handle to the hypervisor; clones share one connection, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Libvirt {
    actor: Arc<Actor>,
}

impl Libvirt {
    /// Starts libvirt's event loop (once per process) and the threads; connects in the background and for ever again.
    ///
    /// Calls made before the first connection wait for it a moment, then fail with [`Error::Unreachable`].
    /// `qemu:///system` in production, `test:///<node file>` for logic without guests.
    pub(crate) fn open(uri: &str) -> Result<(Self, Events), Error> {
        text::printable("libvirtUri", uri)?;
        let failed =
            |source| Error::Failed { verb: "start", subject: "the connection to libvirt".into(), source };
        ffi::start_event_loop().map_err(|error| failed(Fault::from(&error)))?;
        let (sink, events) = events::channel();
        let actor = Actor::start(uri, sink).map_err(|error| failed(Fault::from(error)))?;
        Ok((Self { actor: Arc::new(actor) }, events))
    }

    /// Whether libvirt answers. While it is silent every call fails at once with [`Error::Unreachable`].
    pub(crate) fn reach(&self) -> Reach {
        self.actor.reach()
    }

    /// Every domain of the host, ours and foreign.
    pub(crate) async fn domains(&self) -> Result<Vec<Domain>, Error> {
        self.actor.run(call("list domains of", READ), Subject::Host, domain::all).await
    }

    /// One domain, or `None` if libvirt does not know it.
    pub(crate) async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, Error> {
        self.on(call("read", READ), uuid, move |connect| domain::one(connect, uuid)).await
    }

    /// Defines or redefines from XML, always validated. A running guest takes the new definition at its next start.
    pub(crate) async fn define(&self, uuid: Uuid, xml: String) -> Result<(), Error> {
        text::printable("xml", &xml)?;
        self.on(call("define", DEFINE), uuid, move |connect| domain::define(connect, &xml)).await
    }

    /// Starts a domain that is off; [`Error::WrongState`] if it is not.
    pub(crate) async fn start(&self, uuid: Uuid, paused: StartPaused) -> Result<(), Error> {
        self.on(call("start", START), uuid, move |connect| domain::start(connect, uuid, paused)).await
    }

    /// Presses the power button and returns; whether the guest obeys is seen later.
    pub(crate) async fn shutdown(&self, uuid: Uuid) -> Result<(), Error> {
        self.on(call("shut down", CHANGE), uuid, move |connect| domain::shutdown(connect, uuid)).await
    }

    /// Ends the guest at once, as by pulling the plug.
    pub(crate) async fn destroy(&self, uuid: Uuid) -> Result<(), Error> {
        self.on(call("destroy", STOP), uuid, move |connect| domain::destroy(connect, uuid)).await
    }

    /// Stops the guest's CPUs; its memory stays.
    pub(crate) async fn suspend(&self, uuid: Uuid) -> Result<(), Error> {
        self.on(call("pause", CHANGE), uuid, move |connect| domain::suspend(connect, uuid)).await
    }

    /// Lets a paused guest go on.
    pub(crate) async fn resume(&self, uuid: Uuid) -> Result<(), Error> {
        self.on(call("resume", CHANGE), uuid, move |connect| domain::resume(connect, uuid)).await
    }

    /// Forgets a domain that is off; its files stay, the NVRAM too. One that still runs turns transient: destroy first.
    pub(crate) async fn undefine(&self, uuid: Uuid) -> Result<(), Error> {
        self.on(call("undefine", CHANGE), uuid, move |connect| domain::undefine(connect, uuid)).await
    }

    /// Replaces the text of our metadata element, in the stored definition and in the running one.
    pub(crate) async fn set_record(&self, uuid: Uuid, record: &str) -> Result<(), Error> {
        text::record("record", record)?;
        let record = record.to_owned();
        self.on(call("write the record of", CHANGE), uuid, move |connect| {
            domain::set_record(connect, uuid, &record)
        })
        .await
    }

    /// What the DHCP servers of libvirt's networks gave a running guest; empty while it has nothing.
    pub(crate) async fn leases(&self, uuid: Uuid) -> Result<Vec<Lease>, Error> {
        self.on(call("read the leases of", READ), uuid, move |connect| domain::leases(connect, uuid)).await
    }

    /// Every libvirt network of the host, ours and foreign.
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.actor.run(call("list networks of", READ), Subject::Host, network::all).await
    }

    /// Defines or redefines from XML, always validated.
    pub(crate) async fn define_network(&self, uuid: Uuid, xml: String) -> Result<(), Error> {
        text::printable("xml", &xml)?;
        self.on_network(call("define", CHANGE), uuid, move |connect| network::define(connect, &xml)).await
    }

    /// Starts a network unless it runs already.
    pub(crate) async fn start_network(&self, uuid: Uuid) -> Result<(), Error> {
        self.on_network(call("start", CHANGE), uuid, move |connect| network::start(connect, uuid)).await
    }

    /// Stops and forgets a network; one that is gone already is a success.
    pub(crate) async fn remove_network(&self, uuid: Uuid) -> Result<(), Error> {
        self.on_network(call("remove", CHANGE), uuid, move |connect| network::remove(connect, uuid)).await
    }

    /// What the host has and what runs on it.
    pub(crate) async fn host(&self) -> Result<HostInfo, Error> {
        self.actor.run(call("describe", READ), Subject::Host, host::read).await
    }

    async fn on<T: Send + 'static>(
        &self,
        call: Call,
        uuid: Uuid,
        work: impl FnOnce(&virt::connect::Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.actor.run(call, Subject::Domain(uuid), work).await
    }

    async fn on_network<T: Send + 'static>(
        &self,
        call: Call,
        uuid: Uuid,
        work: impl FnOnce(&virt::connect::Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.actor.run(call, Subject::Network(uuid), work).await
    }
}

fn call(verb: &'static str, limit: Duration) -> Call {
    Call { verb, limit }
}
