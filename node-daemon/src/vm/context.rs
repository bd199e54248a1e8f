//! What every virtual machine of this node shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use holdfast_api::node::{Capacity, HypervisorNodeSpec, NodeProblem};
use tokio::sync::watch;
use uuid::Uuid;

use super::fetches::Fetches;
use super::guest_user::GuestUsers;
use super::observe;
use super::observed::{Accelerator, Obstacle, Room};
use super::room::{self, Claim, Share};
use crate::accelerator::Proof;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::disk::Disks;
use crate::host_addresses::HostAddresses;
use crate::image::{Budget, Cache, Rules};
use crate::libvirt::{self, Events, Libvirt, domain_xml};
use crate::network::Networks;
use crate::node::{Wishes, problems};
use crate::objects::Objects;
use crate::run::Driver;
use crate::storage;

/// Handles to the world. Passed by reference; there is no global.
pub(crate) struct Context {
    /// Everything the daemon writes lies below it.
    pub(crate) state_dir: PathBuf,
    /// The hypervisor.
    pub(crate) libvirt: Libvirt,
    /// The image cache and what is on its way into it.
    pub(crate) fetches: Fetches,
    /// Makes and grows disks.
    pub(crate) disks: Arc<Disks>,
    /// Networks of this host.
    pub(crate) networks: Networks,
    /// What the API says.
    pub(crate) objects: Objects,
    /// Whom guests' QEMU runs as.
    pub(crate) guest_users: GuestUsers,
    /// What the configuration says shall execute guests.
    pub(crate) configured: domain_xml::Accelerator,
    /// Whether that was seen to run guest code.
    pub(crate) proof: watch::Receiver<Proof>,
    /// What people ask of this node: orphans to discard, images to fetch ahead.
    pub(crate) wishes: watch::Receiver<Wishes>,
    /// Processors, memory and disk space this host has for virtual machines.
    pub(crate) capacity: watch::Receiver<Capacity>,
    /// Virtual disk bytes that one real byte may be promised to.
    pub(crate) disk_factor: f64,
    /// What keeps the node from its work.
    pub(crate) problems: watch::Receiver<Option<Vec<NodeProblem>>>,
    /// The time of day.
    pub(crate) clock: Clock,
    /// How often the work on a virtual machine panicked.
    pub(crate) panics: AtomicU32,
}

/// Why the driver cannot start: a part of the host it cannot do without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The state folder cannot be measured.
    #[error("could not measure the state folder")]
    Storage { source: std::io::Error },
    /// The image cache cannot be used.
    #[error("could not open the image cache")]
    Cache { source: crate::image::Error },
    /// `qemu-img` cannot be used.
    #[error("could not prepare the making of disks")]
    Disks { source: crate::confined::Error },
    /// The connection to libvirt cannot even be tried.
    #[error("could not prepare the connection to libvirt")]
    Libvirt { source: libvirt::Error },
}

impl Context {
    /// Opens what the driver works on; libvirt is connected to in the background.
    pub(crate) fn open(driver: &Driver) -> Result<(Self, Events), Error> {
        let config = &driver.config;
        let usage = storage::usage(&config.state_dir).map_err(|source| Error::Storage { source })?;
        let images = storage::images_in(&config.state_dir);
        let host = HostAddresses::new(&config.kubeconfig, &config.state_dir.join("api-addresses"));
        let cache = Cache::open(&images, rules(config, usage.for_images(), &host));
        let cache = Arc::new(cache.map_err(|source| Error::Cache { source })?);
        let disks = Arc::new(Disks::open().map_err(|source| Error::Disks { source })?);
        let (libvirt, events) =
            Libvirt::open(&config.libvirt_uri).map_err(|source| Error::Libvirt { source })?;
        let configured = match config.accelerator {
            config::Accelerator::Kvm => domain_xml::Accelerator::Kvm,
            config::Accelerator::Tcg => domain_xml::Accelerator::Tcg,
        };
        let context = Self {
            state_dir: config.state_dir.clone(),
            networks: Networks::new(libvirt.clone(), config.network_pool.net(), config.networks(), host),
            libvirt,
            fetches: Fetches::new(cache, driver.problems.clone()),
            disks,
            objects: driver.objects.clone(),
            guest_users: GuestUsers::new(
                config.guest_uids,
                &config.state_dir,
                configured,
                &config.libvirt_uri,
            ),
            configured,
            proof: driver.proof.clone(),
            wishes: driver.wishes.clone(),
            disk_factor: config.disk_factor,
            capacity: driver.capacity.clone(),
            problems: driver.problems.clone(),
            clock: driver.clock.clone(),
            panics: AtomicU32::new(0),
        };
        Ok((context, events))
    }

    /// What is known of the accelerator now.
    pub(crate) fn accelerator(&self) -> Accelerator {
        match &*self.proof.borrow() {
            Proof::Pending => Accelerator::Trying,
            Proof::Holds => Accelerator::Proved,
            Proof::Missing(why) => Accelerator::Unproved(why.clone()),
        }
    }

    /// Why nothing may be started or imported on this host now.
    pub(crate) fn bar(&self) -> Option<Obstacle> {
        let problems = self.problems.borrow();
        problems::bar(problems.as_deref().unwrap_or_default())
            .map(|(reason, problem)| Obstacle::later(reason, problem.message.clone()))
    }

    /// What the other virtual machines here leave, so that a start does not fail for lack of room: running and halted
    /// ones, orphans, and those that are bound here and not made yet. Without an answer of libvirt the start itself will
    /// say what is wrong.
    pub(crate) async fn room(&self, uid: Uuid) -> Room {
        let Ok(domains) = self.libvirt.domains().await else { return Room::ENDLESS };
        let ours = domains.iter().filter(|domain| domain.record.is_some());
        let held = ours.map(|domain| (domain.uuid, Share::held(domain, observe::read(domain).record())));
        room::left_for(uid, self.whole(), &self.claims(held))
    }

    /// What virtual machines have here, with what their objects ask for.
    pub(crate) fn claims(&self, held: impl Iterator<Item = (Uuid, Share)>) -> BTreeMap<Uuid, Claim> {
        let held = held.map(|(uid, has)| (uid, Claim { has, ..Claim::default() }));
        let mut claims: BTreeMap<Uuid, Claim> = held.collect();
        for vm in self.objects.virtual_machines() {
            let Some(uid) = vm.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) else { continue };
            claims.entry(uid).or_default().asks = Share::asked(&vm.spec);
        }
        claims
    }

    /// What this node has for all of them.
    pub(crate) fn whole(&self) -> Share {
        let capacity = self.capacity.borrow();
        Share {
            cpu: u64::try_from(capacity.cpu).unwrap_or(0).saturating_mul(self.overcommit()),
            memory: capacity.memory.bytes().unwrap_or(0),
            storage: capacity.storage.bytes().unwrap_or(0),
        }
    }

    /// Without the own object the default of the kind holds.
    fn overcommit(&self) -> u64 {
        let own = self.objects.own();
        let own = own.borrow();
        let overcommit = own
            .as_ref()
            .map_or_else(|| HypervisorNodeSpec::default().cpu_overcommit, |node| node.spec.cpu_overcommit);
        u64::try_from(overcommit).unwrap_or(1).max(1)
    }
}

fn rules(config: &Config, available: u64, host: &HostAddresses) -> Rules {
    let sources = &config.image_sources;
    let nets = |networks: &[config::Network]| networks.iter().map(|network| network.net()).collect();
    Rules {
        allow: nets(&sources.allow),
        deny: nets(&sources.deny),
        host: host.clone(),
        allow_loopback: sources.allow_loopback,
        allow_link_local: sources.allow_link_local,
        file_roots: sources.file_roots.clone(),
        max_bytes: sources.max_size.bytes(),
        stall_timeout: sources.stall_timeout(),
        reserve_bytes: config.reserved.storage.bytes(),
        budget: Budget {
            bytes: config.image_cache.budget(available),
            namespace_percent: config.image_cache.namespace_percent,
        },
        ..Rules::default()
    }
}
