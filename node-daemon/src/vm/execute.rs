//! Carries out one step: one effect, no decision. Each is idempotent or safe to repeat after a crash.

use std::collections::BTreeMap;

use holdfast_api::condition;
use uuid::Uuid;

use super::context::Context;
use super::desired::{self, Desired};
use super::dir::{DiskKind, VmDir};
use super::guard;
use super::inputs::{self, Material};
use super::mac;
use super::observe;
use super::observed::Obstacle;
use super::plan::Step;
use super::record::Record;
use crate::disk;
use crate::image::{Digest, Format};
use crate::libvirt::domain_xml::{self, DomainSpec};
use crate::libvirt::{self, StartPaused};
use crate::retry::Retry;

/// What the steps of one plan share.
pub(crate) struct Execution<'a> {
    /// The daemon.
    context: &'a Context,
    /// Whose steps they are.
    uid: Uuid,
    /// The wanted state, where there is one.
    desired: Option<&'a Desired>,
    /// Bytes for the seed.
    material: &'a Material,
    /// Where each interface is plugged in; filled by `EnsureNetwork`, used by `Define`.
    sources: BTreeMap<String, domain_xml::Source>,
}

impl<'a> Execution<'a> {
    /// Nothing done yet.
    pub(crate) fn new(
        context: &'a Context,
        uid: Uuid,
        desired: Option<&'a Desired>,
        material: &'a Material,
    ) -> Self {
        Self { context, uid, desired, material, sources: BTreeMap::new() }
    }

    /// Carries out the steps in order, up to the first that fails; its name comes with the obstacle.
    pub(crate) async fn all(&mut self, steps: &[Step]) -> Result<(), (&'static str, Obstacle)> {
        for step in steps {
            let begun = std::time::Instant::now();
            let result = self.step(step.clone()).await;
            let took_us = begun.elapsed().as_micros();
            tracing::debug!(vm = %self.uid, step = step.name(), took_us, ok = result.is_ok(), "step");
            result.map_err(|obstacle| (step.name(), obstacle))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), Obstacle> {
        let (libvirt, uid) = (&self.context.libvirt, self.uid);
        let dir = VmDir::new(&self.context.state_dir, uid);
        match step {
            Step::FetchImage { image } => self.fetch(&image),
            Step::MakeFolder => blocking(move || dir.make().map_err(|error| folder_obstacle(&error))).await,
            Step::CreateOverlay { disk, image, bytes } => {
                self.create_overlay(&dir, &disk, image, bytes).await
            }
            Step::CreateBlank { disk, bytes } => {
                let path = dir.disk(&disk, DiskKind::Blank);
                self.disks(move |disks| disks.create_blank(&path, bytes)).await
            }
            Step::Grow { disk, kind, bytes } => {
                let path = dir.disk(&disk, kind);
                self.disks(move |disks| disks.grow(&path, kind.format(), bytes)).await
            }
            Step::WriteSeed(record) => self.write_seed(&dir, &record).await,
            Step::EnsureNetwork { interface, mac, network, addresses } => {
                let networks = &self.context.networks;
                let source = networks.ensure(uid, &network, &addresses).await;
                let source = source.map_err(|error| network_obstacle(&error))?;
                let device = mac::device_name(uid, &interface);
                let mut guests =
                    guard::others(libvirt, uid).await.map_err(|error| libvirt_obstacle(&error))?;
                guests.extend(
                    self.desired.map(|it| guard::beside(it, &interface, &network)).unwrap_or_default(),
                );
                let alone = networks.check_station(&network, mac.bytes(), &device, &guests).await;
                alone.map_err(|error| network_obstacle(&error))?;
                self.sources.insert(interface, source);
                Ok(())
            }
            Step::Define(record) => self.define(&dir, &record).await,
            Step::Guard => guard::guard(self.context).await,
            Step::Start { paused } => {
                let paused = if paused { StartPaused::Yes } else { StartPaused::No };
                done(libvirt.start(uid, paused).await)?;
                self.context.networks.screen().await;
                Ok(())
            }
            Step::Remember(record) => done(libvirt.set_record(uid, &text(&record)?).await),
            Step::RequestShutdown => done(libvirt.shutdown(uid).await),
            Step::Destroy => done(libvirt.destroy(uid).await),
            Step::Suspend => done(libvirt.suspend(uid).await),
            Step::Resume => done(libvirt.resume(uid).await),
            Step::Undefine => done(libvirt.undefine(uid).await),
            Step::RemoveFiles => {
                self.context.networks.release(uid).await;
                blocking(move || dir.remove().map_err(|error| folder_obstacle(&error))).await
            }
        }
    }

    fn fetch(&self, image: &str) -> Result<(), Obstacle> {
        if let Some(desired) = self.desired {
            self.context.fetches.begin(&observe::wish(self.context, &desired.identity().namespace, image)?);
        }
        Ok(())
    }

    async fn create_overlay(
        &self,
        dir: &VmDir,
        disk: &str,
        image: Digest,
        bytes: u64,
    ) -> Result<(), Obstacle> {
        let Some(base) = self.context.fetches.cache().lookup(&image) else {
            return Err(Obstacle {
                reason: "ImageGone",
                message: format!("image {image} left the node's cache; it is fetched again"),
                retry: Retry::Soon,
            });
        };
        let path = dir.disk(disk, DiskKind::Overlay);
        self.disks(move |disks| disks.create_overlay(&path, &base, bytes)).await
    }

    /// Disks are made and grown off the async threads.
    async fn disks(
        &self,
        work: impl FnOnce(&disk::Disks) -> Result<(), disk::Error> + Send + 'static,
    ) -> Result<(), Obstacle> {
        let disks = self.context.disks.clone();
        blocking(move || work(&disks).map_err(|error| obstacle(error.reason(), &error, error.retry()))).await
    }

    async fn write_seed(&self, dir: &VmDir, record: &Record) -> Result<(), Obstacle> {
        let path = dir.seed();
        let seed =
            inputs::seed(record, self.desired.map(Desired::interfaces).unwrap_or_default(), self.material);
        blocking(move || seed.write(&path).map_err(|error| obstacle(error.reason(), &error, error.retry())))
            .await
    }

    /// The user that QEMU runs as is chosen here, so that an earlier release's guest has one from its next start on.
    async fn define(&self, dir: &VmDir, record: &Record) -> Result<(), Obstacle> {
        let context = self.context;
        let desired = Desired::applied(self.uid, record)
            .map_err(|refused| obstacle("InvalidSpec", &refused, Retry::OnChange))?;
        let _turn = context.guest_users.turn().await;
        let user = context.guest_users.choose(&context.libvirt, self.uid, record.guest_uid).await?;
        let record = Record { guest_uid: Some(user.uid), ..record.clone() };
        let spec = self.domain_spec(&desired, dir, &record, user)?;
        let xml =
            domain_xml::to_xml(&spec).map_err(|error| obstacle("InvalidSpec", &error, Retry::OnChange))?;
        let dir = dir.clone();
        blocking(move || dir.hand_to(user).map_err(|error| folder_obstacle(&error))).await?;
        done(context.libvirt.define(self.uid, xml).await)
    }

    fn domain_spec(
        &self,
        desired: &Desired,
        dir: &VmDir,
        record: &Record,
        user: domain_xml::User,
    ) -> Result<DomainSpec, Obstacle> {
        let identity = desired.identity();
        let disks =
            desired.disks().iter().map(|disk| self.disk(dir, disk, record)).collect::<Result<_, _>>()?;
        let interfaces =
            desired.interfaces().iter().map(|one| self.interface(one)).collect::<Result<_, _>>()?;
        Ok(DomainSpec {
            uuid: self.uid,
            name: format!("hf-{}", self.uid),
            title: format!("{}/{}", identity.namespace, identity.name),
            record: text(record)?,
            accelerator: self.context.configured,
            arch: arch(),
            cpu: desired.cpu(),
            memory_mib: desired.memory_mib(),
            firmware: match desired.firmware() {
                holdfast_api::virtual_machine::Firmware::Uefi => {
                    domain_xml::Firmware::Uefi { nvram: dir.nvram() }
                }
                holdfast_api::virtual_machine::Firmware::Bios => domain_xml::Firmware::Bios,
            },
            disks,
            seed: dir.seed(),
            interfaces,
            serial_log: dir.serial_log(),
            user,
        })
    }

    fn disk(&self, dir: &VmDir, disk: &desired::Disk, record: &Record) -> Result<domain_xml::Disk, Obstacle> {
        let (path, format, backing) = match (&disk.source, record.images.get(&disk.name)) {
            (desired::Source::Image { .. }, Some(image)) => {
                let Some(base) = self.context.fetches.cache().lookup(&image.digest) else {
                    return Err(Obstacle::later(
                        "ImageGone",
                        format!("image {} left the node's cache", image.digest),
                    ));
                };
                let backing = Some((base.path, xml_format(image.format)));
                (dir.disk(&disk.name, DiskKind::Overlay), domain_xml::Format::Qcow2, backing)
            }
            (_, _) => (dir.disk(&disk.name, DiskKind::Blank), domain_xml::Format::Raw, None),
        };
        Ok(domain_xml::Disk { name: disk.name.clone(), path, format, backing })
    }

    fn interface(&self, interface: &desired::Interface) -> Result<domain_xml::Interface, Obstacle> {
        let Some(source) = self.sources.get(&interface.name) else {
            return Err(Obstacle::later(
                "NetworkUnknown",
                format!("interface {} has no network yet", interface.name),
            ));
        };
        Ok(domain_xml::Interface {
            name: interface.name.clone(),
            mac: interface.mac.to_string(),
            target_dev: mac::device_name(self.uid, &interface.name),
            source: source.clone(),
        })
    }
}

fn xml_format(format: Format) -> domain_xml::Format {
    match format {
        Format::Qcow2 => domain_xml::Format::Qcow2,
        Format::Raw => domain_xml::Format::Raw,
    }
}

fn arch() -> domain_xml::Arch {
    if cfg!(target_arch = "aarch64") { domain_xml::Arch::Aarch64 } else { domain_xml::Arch::X86_64 }
}

fn text(record: &Record) -> Result<String, Obstacle> {
    serde_json::to_string(record).map_err(|error| obstacle("InvalidSpec", &error, Retry::OnChange))
}

fn done(result: Result<(), libvirt::Error>) -> Result<(), Obstacle> {
    result.map_err(|error| libvirt_obstacle(&error))
}

/// How an error of libvirt shows on a virtual machine.
pub(crate) fn libvirt_obstacle(error: &libvirt::Error) -> Obstacle {
    let reason = match error {
        libvirt::Error::Unreachable { .. } | libvirt::Error::Timeout { .. } | libvirt::Error::Busy { .. } => {
            let message = format!("{error}: {}", libvirt::REMEDY);
            return Obstacle { reason: condition::HYPERVISOR_UNREACHABLE, message, retry: error.retry() };
        }
        libvirt::Error::Absent { .. } | libvirt::Error::WrongState { .. } => "StateMoved",
        libvirt::Error::Refused { .. } | libvirt::Error::Invalid(_) => "HypervisorRefused",
        libvirt::Error::Failed { .. } => "HypervisorFailed",
    };
    obstacle(reason, error, error.retry())
}

/// How an error of the networks shows on a virtual machine.
pub(crate) fn network_obstacle(error: &crate::network::Error) -> Obstacle {
    obstacle(error.reason(), error, error.retry())
}

fn obstacle(reason: &'static str, error: &dyn std::error::Error, retry: Retry) -> Obstacle {
    Obstacle { reason, message: super::sentence(error), retry }
}

fn folder_obstacle(error: &std::io::Error) -> Obstacle {
    let reason = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "DiskFull",
        _ => "StorageFailed",
    };
    let message = format!(
        "could not work on the folder of the virtual machine: {error}; the node tries again by itself"
    );
    Obstacle::later(reason, message)
}

async fn blocking(work: impl FnOnce() -> Result<(), Obstacle> + Send + 'static) -> Result<(), Obstacle> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(obstacle("Internal", &error, Retry::Later)),
    }
}
