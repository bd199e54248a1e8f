//! Virtual machines in stories: a blueprint that reads as prose, and the machine made from it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use holdfast_api::VirtualMachine;
use holdfast_api::virtual_machine::VirtualMachineStatus;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::files;
use crate::guest::{Guest, init_pid};
use crate::story::Story;
use crate::wait::{Look, wait_for};

/// Many times what a tiny guest takes to boot on two cores without KVM: a busy machine makes it several times slower.
pub const SOON: Duration = Duration::from_secs(240);
/// Several times what Debian with its cloud-init takes there.
pub const LATER: Duration = Duration::from_secs(420);

/// What a story wants a virtual machine to be.
#[derive(Clone, Debug)]
pub struct Blueprint {
    name: String,
    spec: Value,
}

/// One processor, 128 MiB and the tiny guest, which boots in seconds; on the story's network `default`.
pub fn tiny(name: &str) -> Blueprint {
    let spec = json!({
        "cpu": 1,
        "memory": "128Mi",
        "firmware": "BIOS",
        "terminationGracePeriodSeconds": 30,
        "disks": [{"name": "root", "size": "64Mi", "image": {"name": "tiny"}}],
        "interfaces": [{"name": "lan", "network": {"name": "default"}}],
    });
    Blueprint { name: name.to_owned(), spec }
}

/// One processor (two race in emulated code patching), 1 GiB and Debian with its own cloud-init; on the story's network
/// `default`.
pub fn debian(name: &str) -> Blueprint {
    let spec = json!({
        "cpu": 1,
        "memory": "1Gi",
        "disks": [{"name": "root", "size": "4Gi", "image": {"name": "debian"}}],
        "interfaces": [{"name": "lan", "network": {"name": "default"}}],
    });
    Blueprint { name: name.to_owned(), spec }
}

impl Blueprint {
    /// Sets a field of the spec, whatever it is.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec[field] = value.into();
        self
    }

    /// Sets a field of `spec.cloudInit`.
    #[must_use]
    pub fn cloud_init(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec["cloudInit"][field] = value.into();
        self
    }

    /// Tells the tiny guest what to do, in its own verbs (images/README.md), such as `poweroff-after=5`.
    #[must_use]
    pub fn that(self, verbs: &str) -> Self {
        self.cloud_init("userData", format!("#tiny: {verbs}\n"))
    }

    /// Binds it to a host.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        self.with("placement", json!({ "nodeName": node }))
    }

    /// The whole object.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "holdfast.dev/v1alpha1",
            "kind": "VirtualMachine",
            "metadata": {"name": self.name},
            "spec": self.spec,
        })
    }
}

/// A virtual machine of a story.
pub struct Machine<'a> {
    story: &'a Story<'a>,
    name: String,
    uid: String,
}

impl<'a> Machine<'a> {
    /// Creates it, as the story's editor.
    pub async fn create(story: &'a Story<'a>, blueprint: &Blueprint) -> Result<Self> {
        let object =
            serde_json::from_value(blueprint.object()).context("the blueprint is no VirtualMachine")?;
        let machines: Api<VirtualMachine> = story.api();
        let created = machines.create(&PostParams::default(), &object).await;
        let created = created.with_context(|| format!("could not create {}", blueprint.name))?;
        Ok(Self { story, name: blueprint.name.clone(), uid: created.uid().context("the object has no UID")? })
    }

    /// One that others made.
    pub async fn find(story: &'a Story<'a>, name: &str) -> Result<Self> {
        let machines: Api<VirtualMachine> = story.api();
        let found = machines.get(name).await.with_context(|| format!("could not read {name}"))?;
        Ok(Self { story, name: name.to_owned(), uid: found.uid().context("the object has no UID")? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UID, which is the domain's UUID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    fn api(&self) -> Api<VirtualMachine> {
        self.story.api()
    }

    /// The object as it is now.
    pub async fn object(&self) -> Result<VirtualMachine> {
        self.api().get(&self.name).await.with_context(|| format!("could not read {}", self.name))
    }

    /// Its status as it is now.
    pub async fn status(&self) -> Result<VirtualMachineStatus> {
        Ok(self.object().await?.status.unwrap_or_default())
    }

    /// Changes its spec by a merge patch, as the editor.
    pub async fn change(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let outcome = self.api().patch(&self.name, &PatchParams::default(), &patch).await;
        outcome.map(drop).with_context(|| format!("could not change {}", self.name))
    }

    /// Asks for its deletion.
    pub async fn delete(&self) -> Result<()> {
        let outcome = self.api().delete(&self.name, &DeleteParams::default()).await;
        outcome.map(drop).with_context(|| format!("could not delete {}", self.name))
    }

    /// Waits until the object is gone.
    pub async fn wait_gone(&self, limit: Duration) -> Result<()> {
        self.story.wait_gone::<VirtualMachine>(&self.name, limit).await
    }

    /// Waits until a condition of the current generation has this status; returns its reason.
    pub async fn wait_condition(&self, kind: &str, status: &str, limit: Duration) -> Result<String> {
        self.wait(&format!("{kind}={status}"), limit, |machine| {
            let generation = machine.metadata.generation.unwrap_or_default();
            let conditions = machine.status.iter().flat_map(|status| &status.conditions);
            match conditions.into_iter().find(|condition| condition.type_ == kind) {
                None => Look::NotYet(format!("no condition {kind}")),
                Some(found) if found.observed_generation.is_some_and(|seen| seen < generation) => {
                    Look::NotYet(format!("{kind} is of an older generation"))
                }
                Some(found) if found.status == status => Look::Done(found.reason.clone()),
                Some(found) => Look::NotYet(format!("{}: {} {}", found.status, found.reason, found.message)),
            }
        })
        .await
    }

    /// Waits until it is ready for this reason, at its current generation.
    pub async fn wait_ready(&self, reason: &str, limit: Duration) -> Result<()> {
        self.wait(&format!("ready for {reason}"), limit, |machine| {
            let mut conditions = machine.status.iter().flat_map(|status| &status.conditions);
            match conditions.find(|condition| condition.type_ == "Ready") {
                Some(ready)
                    if ready.status == "True"
                        && ready.reason == reason
                        && ready.observed_generation >= machine.metadata.generation =>
                {
                    Look::Done(())
                }
                ready => Look::NotYet(format!("{ready:?}")),
            }
        })
        .await
    }

    /// Waits until it is not ready for this reason; returns the sentence.
    pub async fn wait_unready(&self, reason: &str, limit: Duration) -> Result<String> {
        self.wait(&format!("not ready for {reason}"), limit, |machine| {
            let mut conditions = machine.status.iter().flat_map(|status| &status.conditions);
            match conditions.find(|condition| condition.type_ == "Ready") {
                Some(ready) if ready.status == "False" && ready.reason == reason => {
                    Look::Done(ready.message.clone())
                }
                ready => Look::NotYet(format!("{ready:?}")),
            }
        })
        .await
    }

    /// Waits until the story is content with the object.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        judge: impl FnMut(&VirtualMachine) -> Look<T>,
    ) -> Result<T> {
        self.story.wait::<VirtualMachine, T>(what, &self.name, limit, judge).await
    }

    /// The host that holds it.
    pub async fn node(&self) -> Result<String> {
        let node = self.status().await?.node_name;
        if node.is_empty() { Err(anyhow!("{} is on no node", self.name)) } else { Ok(node) }
    }

    /// The state of its domain, as libvirt says; an error when there is no such domain.
    pub async fn domain_state(&self) -> Result<String> {
        let node = self.node().await?;
        let mut member = self.story.site.member(&node).await?;
        Ok(member.host().virsh(&["domstate", &self.uid])?.trim().to_owned())
    }

    /// The process id of its QEMU inside its host; none while it is off.
    pub async fn qemu(&self) -> Result<Option<String>> {
        let node = self.node().await?;
        let mut member = self.story.site.member(&node).await?;
        let found =
            member.host().output(&["pgrep", "--full", &format!("qemu-system.* -uuid {}", self.uid)])?;
        let text = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        Ok((!text.is_empty()).then_some(text))
    }

    /// The user id and the group of its QEMU; they must be all it has, the label libvirt keeps, and the owners of its
    /// files. What is not the guest's own must be root's.
    pub async fn user(&self) -> Result<(u32, u32)> {
        let pid = self.qemu().await?.with_context(|| format!("{} has no QEMU", self.name))?;
        let node = self.node().await?;
        let mut member = self.story.site.member(&node).await?;
        let host = member.host();
        let status = host.run(&["cat", &format!("/proc/{pid}/status")])?;
        let ids = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
        };
        let (uids, gids) = (ids("Uid:"), ids("Gid:"));
        let (Some(uid), Some(gid)) = (uids.first(), gids.first()) else { bail!("no user in {status}") };
        ensure!(uids == [*uid; 4] && gids == [*gid; 4] && ids("Groups:") == [*gid], "{status}");
        let xml = host.virsh(&["dumpxml", &self.uid])?;
        ensure!(
            xml.contains(&format!("<label>+{uid}:+{gid}</label>")),
            "another label than {uid}:{gid} in {xml}"
        );

        let folder = format!("/var/lib/holdfast/vms/{}", self.uid);
        let images = "/var/lib/holdfast/images/*.img";
        let files =
            host.run(&["sh", "-c", &format!("stat -c '%u:%g:%a %n' {folder}/* {folder} {images}")])?;
        for line in files.lines() {
            let owner = match line.rsplit('/').next().unwrap_or_default() {
                name if name.starts_with("serial.log") => "0:0:600".to_owned(),
                name if name == self.uid => "0:0:711".to_owned(),
                _ if line.contains("/images/") => "0:0:444".to_owned(),
                _ => format!("{uid}:{gid}:600"),
            };
            ensure!(line.starts_with(&format!("{owner} ")), "{line}, and not {owner}");
        }
        Ok((*uid, *gid))
    }

    /// Kills its QEMU as a crash would.
    pub async fn crash(&self) -> Result<()> {
        let pid = self.qemu().await?.with_context(|| format!("{} has no QEMU to kill", self.name))?;
        let node = self.node().await?;
        let mut member = self.story.site.member(&node).await?;
        member.host().run(&["kill", "-9", &pid]).map(drop)
    }

    /// What the guest has written to its serial console.
    pub async fn serial(&self) -> Result<String> {
        let node = self.node().await?;
        let mut member = self.story.site.member(&node).await?;
        files::read(&member.host().outside(&format!("/var/lib/holdfast/vms/{}/serial.log", self.uid)))
    }

    /// Waits until the guest has written `text` so many times.
    pub async fn wait_serial(&self, text: &str, times: usize, limit: Duration) -> Result<()> {
        wait_for(&format!("{times} times {text:?} from {}", self.name), limit, async || {
            let written = self.serial().await?;
            let seen = written.matches(text).count();
            let last = written.lines().next_back().unwrap_or_default();
            Ok(if seen >= times {
                Look::Done(())
            } else {
                Look::NotYet(format!("{seen} times; last line {last:?}"))
            })
        })
        .await
    }

    /// A way in by SSH with the site's key.
    pub async fn guest(&self, user: &str) -> Result<Guest> {
        let status = self.status().await?;
        let Some(address) = status.addresses.first() else { bail!("{} has no address", self.name) };
        Ok(Guest {
            init_pid: init_pid(&self.story.site.folder().join("hosts").join(&status.node_name))?,
            address: address.ip.clone(),
            user: user.to_owned(),
            key: self.story.site.ssh_key()?,
        })
    }
}
