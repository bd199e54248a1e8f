//! `tofu apply` and `terraform apply` down to a real guest, by an ordinary editor of a namespace.

use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_api::{SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork};
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::machine::{LATER, Machine, SOON};
use holdfast_tests::story::{self, Story};
use holdfast_tests::terraform::{Cli, Workspace};
use holdfast_tests::{files, guest_image};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

const ADDRESS: &str = "holdfast_virtual_machine.web";

/// What a guest of this kind needs, and it.
fn configuration(story: &Story<'_>, guest: &str, machine: &str) -> Result<String> {
    let image = guest_image::find(guest)?;
    let path = format!("{}/{guest}.qcow2", story.namespace);
    let url = story.site.images().serve(&path, &image.file, Behaviour::Good);
    let key = files::read(&story.site.ssh_key()?.with_extension("pub"))?;
    Ok(format!(
        r#"
provider "holdfast" {{
  namespace = "{}"
}}
resource "holdfast_network" "lan" {{
  name = "lan"
  nat  = {{}}
}}
resource "holdfast_ssh_key" "site" {{
  name       = "site"
  public_key = "{}"
}}
resource "holdfast_image" "guest" {{
  name   = "{guest}"
  source = {{ http = {{ url = "{url}" }} }}
  digest = "{}"
  format = "qcow2"
}}
resource "holdfast_virtual_machine" "web" {{
  name       = "web"
  interfaces = [{{ name = "lan", network = holdfast_network.lan.name, wait_for_address = true }}]
  {machine}
}}
output "address" {{
  value = holdfast_virtual_machine.web.address
}}
"#,
        story.namespace,
        key.trim(),
        image.digest,
    ))
}

fn workspace(story: &Story<'_>, cli: Cli) -> Result<Workspace> {
    let folder = story.site.folder().join(format!("{}-{}", story.namespace, cli.word()));
    Workspace::open(cli, folder, &story.editor())
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
async fn an_apply_ends_in_a_guest_that_answers_ssh_at_the_address_it_outputs() -> Result<()> {
    story::tell("tf-ssh", async |story| {
        let workspace = workspace(story, Cli::OpenTofu)?;
        let machine = |cpu: u8| {
            let parts = [
                format!("cpu = {cpu}"),
                "memory = \"1Gi\"".to_owned(),
                "disks = [{ name = \"root\", size = \"4Gi\", image = holdfast_image.guest.name }]".to_owned(),
                "cloud_init = {\n  hostname = \"shop\"\n  ssh_keys = [holdfast_ssh_key.site.name]\n  \
                 user_data = \"#cloud-config\\nwrite_files: [{path: /etc/told, content: by-terraform}]\\n\"\n}"
                    .to_owned(),
            ];
            configuration(story, "debian", &parts.join("\n  "))
        };
        workspace.apply(&machine(1)?)?;
        let vm = Machine::find(story, "web").await?;
        let mut guest = vm.guest("debian").await?;
        guest.address = workspace.output("address")?;
        guest.wait_ssh(LATER).await?;
        assert_eq!(guest.run(&["cloud-init", "status", "--wait"])?.trim(), "status: done");
        assert_eq!(guest.run(&["hostname"])?.trim(), "shop");
        assert_eq!(guest.run(&["cat", "/etc/told"])?.trim(), "by-terraform");

        // In place: the guest runs on, and is told to wait for its next start.
        let process = vm.qemu().await?;
        workspace.apply(&machine(2)?)?;
        assert_eq!((vm.qemu().await?, process.is_some()), (process, true));
        assert_eq!(workspace.values(ADDRESS)?["status"]["pending_changes"][0]["field"], json!("spec.cpu"));
        assert_eq!(workspace.values(ADDRESS)?["uid"], json!(vm.uid()));

        workspace.succeed(&["destroy", "-auto-approve"])?;
        must_be_gone(story, &workspace, vm.uid()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_replaced_imported_and_destroyed_and_nothing_of_it_stays() -> Result<()> {
    story::tell("tf-life", async |story| {
        let cli = Cli::here().pop().context("no program")?;
        let workspace = workspace(story, cli)?;
        let machine = |more: &str| {
            let disk = "disks = [{ name = \"root\", size = \"64Mi\", image = holdfast_image.guest.name }]";
            configuration(
                story,
                "tiny",
                &format!("cpu = 1\n  memory = \"128Mi\"\n  firmware = \"BIOS\"\n  {disk}\n  {more}"),
            )
        };
        workspace.succeed(&["validate"])?;
        workspace.apply(&machine("")?)?;
        let first = Machine::find(story, "web").await?;
        first.wait_serial("holdfast-tiny ready", 1, SOON).await?;

        let other = "cloud_init = { user_data = \"#tiny: nothing\\n\" }\n  on_user_data_change = \"replace\"";
        assert_eq!(workspace.planned(&machine(other)?)?[ADDRESS], ["delete", "create"]);
        workspace.apply(&machine(other)?)?;
        let second = Machine::find(story, "web").await?;
        assert_ne!(first.uid(), second.uid());

        workspace.succeed(&["state", "rm", ADDRESS])?;
        workspace.succeed(&["import", ADDRESS, &format!("{}/web", story.namespace)])?;
        workspace.apply(&machine(other)?)?;
        assert_eq!(Machine::find(story, "web").await?.uid(), second.uid());

        workspace.succeed(&["destroy", "-auto-approve"])?;
        must_be_gone(story, &workspace, first.uid()).await?;
        must_be_gone(story, &workspace, second.uid()).await
    })
    .await
}
