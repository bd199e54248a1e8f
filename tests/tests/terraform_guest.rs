//! `tofu apply` and `terraform apply` down to a real guest, by an ordinary editor of a namespace where nothing else is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use holdfast_api::{SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork};
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::machine::{LATER, Machine, SOON};
use holdfast_tests::story::{self, Story};
use holdfast_tests::terraform::{Cli, Workspace};
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, guest_image};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const ADDRESS: &str = "holdfast_virtual_machine.web";

/// A tiny guest, what it needs, and `more` of it.
fn configuration(story: &Story<'_>, more: &str) -> String {
    format!(
        r#"
provider "holdfast" {{
  namespace = "{}"
}}
resource "holdfast_network" "lan" {{
  name = "lan"
  nat  = {{}}
}}
resource "holdfast_virtual_machine" "web" {{
  name       = "web"
  cpu        = 1
  memory     = "128Mi"
  firmware   = "BIOS"
  disks      = [{{ name = "root", size = "64Mi", image = "tiny" }}]
  interfaces = [{{ name = "lan", network = holdfast_network.lan.name, wait_for_address = true }}]
  {more}
}}
"#,
        story.namespace,
    )
}

fn workspace(story: &Story<'_>, cli: Cli) -> Result<Workspace> {
    workspace_of(story, cli, &story.editor())
}

fn workspace_of(story: &Story<'_>, cli: Cli, kubeconfig: &Path) -> Result<Workspace> {
    let folder = story.site.folder().join(format!("{}-{}", story.namespace, cli.word()));
    Workspace::open(cli, folder, kubeconfig)
}

/// Nothing of a machine, of its network or of the provider is left anywhere, but for the log that libvirt keeps of each
/// domain.
async fn must_be_gone(story: &Story<'_>, workspace: &Workspace, uid: &str) -> Result<()> {
    let all = ListParams::default();
    let left = [
        names(&story.api::<VirtualMachine>(), &all).await?,
        names(&story.api::<VirtualMachineImage>(), &all).await?,
        names(&story.api::<VirtualMachineNetwork>(), &all).await?,
        names(&story.api::<SSHKey>(), &all).await?,
    ]
    .concat();
    ensure!(left.is_empty(), "objects are left: {left:?}");
    for name in story.site.names() {
        let mut member = story.site.member(name).await?;
        let host = member.host();
        for (what, said) in [
            ("a domain", host.virsh(&["list", "--all", "--uuid"])?),
            (
                "a process",
                String::from_utf8_lossy(&host.output(&["pgrep", "--full", uid])?.stdout).into_owned(),
            ),
            ("files", host.run(&["find", "/var/lib", "/run", "-name", &format!("*{uid}*")])?),
        ] {
            ensure!(
                !said.contains(uid) && (what != "a process" || said.is_empty()),
                "{what} is left on {name}: {said}"
            );
        }
    }
    let files: Vec<_> =
        fs::read_dir(workspace.temporary()).context("could not list")?.filter_map(Result::ok).collect();
    ensure!(files.is_empty(), "the provider left {files:?}");
    Ok(())
}

async fn names<K>(api: &Api<K>, all: &ListParams) -> Result<Vec<String>>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    Ok(api.list(all).await.context("could not list")?.iter().map(ResourceExt::name_any).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_one_machine_ends_in_a_guest_that_answers_ssh_at_the_address_it_outputs() -> Result<()>
{
    story::tell("tf-ssh", async |story| {
        let mut workspace = workspace(story, Cli::OpenTofu)?;
        let image = guest_image::find("debian")?;
        let url = story.site.images().serve("tf-ssh/debian.qcow2", &image.file, Behaviour::Good);
        let key = story.site.ssh_key()?.with_extension("pub");
        workspace.set("TF_VAR_image", &json!({"url": url, "digest": image.digest}).to_string());
        workspace.set("TF_VAR_public_key_file", &key.display().to_string());
        workspace.take_example("vm", &story.namespace)?;
        workspace.apply_what_stands()?;
        let vm = Machine::find(story, "hello").await?;
        let mut guest = vm.guest("debian").await?;
        guest.address = workspace.output("address")?;
        guest.wait_ssh(LATER).await?;
        assert_eq!(guest.run(&["cloud-init", "status", "--wait"])?.trim(), "status: done");
        assert_eq!(guest.run(&["hostname"])?.trim(), "hello");
        assert_eq!(guest.run(&["cat", "/etc/motd"])?.trim(), "This is hello, made by terraform apply.");

        // In place: the guest runs on, and is told to wait for its next start.
        let process = vm.qemu().await?;
        let main = workspace.work().join("main.tf");
        files::write(&main, files::read(&main)?.replace("cpu    = 1", "cpu    = 2"))?;
        workspace.apply_what_stands()?;
        assert_eq!((vm.qemu().await?, process.is_some()), (process, true));
        let values = workspace.values("holdfast_virtual_machine.hello")?;
        assert_eq!(values["status"]["pending_changes"][0]["field"], json!("spec.cpu"));
        assert_eq!(values["uid"], json!(vm.uid()));

        workspace.succeed(&["destroy", "-auto-approve"])?;
        must_be_gone(story, &workspace, vm.uid()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_replaced_imported_and_destroyed_and_nothing_of_it_stays() -> Result<()> {
    story::tell("tf-life", async |story| {
        story.offer_image("tiny").await?;
        let cli = Cli::here().pop().context("no program")?;
        let workspace = workspace(story, cli)?;
        workspace.succeed(&["validate"])?;
        workspace.apply(&configuration(story, ""))?;
        let first = Machine::find(story, "web").await?;
        first.wait_serial("holdfast-tiny ready", 1, SOON).await?;

        let other = "cloud_init = { user_data = \"#tiny: nothing\\n\" }\n  on_user_data_change = \"replace\"";
        let other = configuration(story, other);
        assert_eq!(workspace.planned(&other)?[ADDRESS], ["delete", "create"]);
        workspace.apply(&other)?;
        let second = Machine::find(story, "web").await?;
        assert_ne!(first.uid(), second.uid());

        workspace.succeed(&["state", "rm", ADDRESS])?;
        workspace.succeed(&["import", ADDRESS, &format!("{}/web", story.namespace)])?;
        workspace.apply(&other)?;
        assert_eq!(Machine::find(story, "web").await?.uid(), second.uid());

        workspace.succeed(&["destroy", "-auto-approve"])?;
        story.api::<VirtualMachineImage>().delete("tiny", &DeleteParams::default()).await?;
        must_be_gone(story, &workspace, first.uid()).await?;
        must_be_gone(story, &workspace, second.uid()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_fleet_comes_up_and_grows_by_a_line() -> Result<()> {
    story::tell("tf-fleet", async |story| {
        story.offer_image("tiny").await?;
        // Its output `nodes` reads what an editor of one namespace may not.
        let workspace = workspace_of(story, Cli::OpenTofu, story.site.kubeconfig())?;
        workspace.take_example("fleet", &story.namespace)?;
        workspace.apply_what_stands()?;
        let till = Machine::find(story, "till-1").await?;
        let addresses = workspace.succeed(&["output", "-json", "addresses"])?;
        let addresses: BTreeMap<String, Option<String>> = serde_json::from_str(&addresses)?;
        let has = |name: &str| addresses[name].is_some();
        assert_eq!((has("till-1"), has("till-2"), has("spare")), (true, true, false));

        let variables = workspace.work().join("variables.tf");
        let grown =
            files::read(&variables)?.replace("till-1 = {}", "till-1 = {}\n    till-3 = { running = false }");
        files::write(&variables, grown)?;
        workspace.apply_what_stands()?;
        assert_eq!(Machine::find(story, "till-1").await?.uid(), till.uid());
        workspace.succeed(&["destroy", "-auto-approve"]).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_cluster_is_three_guests_that_find_each_other() -> Result<()> {
    story::tell("tf-ring", async |story| {
        story.offer_image("debian").await?;
        story.offer_key().await?;
        let mut workspace = workspace(story, Cli::OpenTofu)?;
        let variables = [("image", "debian"), ("node", "a"), ("ssh_keys", r#"["site"]"#)];
        for (name, value) in variables {
            workspace.set(&format!("TF_VAR_{name}"), value);
        }
        workspace.take_example("cluster", &story.namespace)?;
        workspace.apply_what_stands()?;
        let guest = Machine::find(story, "ring-1").await?.guest("debian").await?;
        let roll =
            "import urllib.request as r; print(r.urlopen('http://localhost:8080/roll').read().decode())";
        wait_for("all three to answer the roll", LATER, async || {
            let said = guest.run(&["python3", "-c", &format!("\"{roll}\"")])?;
            let here = ["ring-1", "ring-2", "ring-3"].iter().all(|name| said.contains(name));
            Ok(if here { Look::Done(()) } else { Look::NotYet(said) })
        })
        .await?;
        workspace.succeed(&["destroy", "-auto-approve"]).map(drop)
    })
    .await
}
