//! What a guest is given at birth: keys, a hostname, and a Secret whose bytes reach the guest and nothing else.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::virtual_machine::WaitsFor;
use holdfast_api::{SSHKey, VirtualMachine};
use holdfast_tests::machine::{LATER, Machine, SOON, debian, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::Look;
use holdfast_tests::{files, install, site};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const HEARD: &str = "deaf to the power button";

async fn offer_secret(story: &Story<'_>, name: &str, data: Value) -> Result<()> {
    let object = json!({"metadata": {"name": name}, "stringData": data});
    story.create::<Secret>(&object.to_string()).await.map(drop)
}

async fn edit_secret(story: &Story<'_>, name: &str, data: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "stringData": data }));
    let outcome = story.api::<Secret>().patch(name, &PatchParams::default(), &patch).await;
    outcome.map(drop).with_context(|| format!("could not edit Secret {name}"))
}

fn from_secret(name: &str) -> Value {
    json!({"name": name, "key": "user-data"})
}

/// The text, and every form base64 gives it, wherever in a longer text it stands.
fn disguises(canary: &str) -> Vec<String> {
    let shifted = |shift: usize| {
        let text = STANDARD.encode([vec![b' '; shift], canary.as_bytes().to_vec()].concat());
        // The first and the last group hold bits of the neighbours too.
        text[4..text.len() - 4].to_owned()
    };
    [canary.to_owned()].into_iter().chain((0..3).map(shifted)).collect()
}

/// Every file below `folder` that holds one of the words.
fn holders(folder: &Path, words: &[String]) -> Result<Vec<PathBuf>> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--text", "--files-with-matches", "--fixed-strings", "--devices=skip"]);
    grep.args(["--no-messages", "--file=-"]).arg(folder);
    let mut child =
        grep.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("could not run grep")?;
    let mut input = child.stdin.take().context("grep takes no words")?;
    input.write_all(words.join("\n").as_bytes()).context("could not tell grep what to look for")?;
    drop(input);
    let found = child.wait_with_output().context("could not wait for grep")?;
    Ok(String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect())
}

fn assert_clean(place: &str, text: &str, words: &[String]) {
    let line = text.lines().find(|line| words.iter().any(|word| line.contains(word)));
    assert_eq!(line, None, "the Secret stands in {place}");
}

/// Files that hold the Secret by design: the cluster's own store, the seed, and the disk of the guest it was given to.
fn may_hold(file: &Path, machine: &Machine<'_>) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text = file.to_string_lossy();
    let own = text.contains(&format!("/vms/{}/", machine.uid()));
    name.starts_with("state.db") || (own && (name == "seed.img" || name == "disk-root.qcow2"))
}

async fn assert_secret_stays_in_its_places(
    story: &Story<'_>,
    machine: &Machine<'_>,
    words: &[String],
) -> Result<()> {
    let ask = |what: &[&str]| install::kubectl(story.site.kubeconfig(), what);
    let kinds = "holdfast,events,configmaps,serviceaccounts,roles,rolebindings,leases";
    let objects =
        ask(&["get", kinds, "--namespace", &story.namespace, "--output=yaml", "--show-managed-fields"])?;
    assert!(objects.contains(machine.uid()));
    assert_clean("an object or event", &objects, words);
    let nodes = "hypervisornodes,nodeenrolments,clusterroles,clusterrolebindings";
    assert_clean("an object of the cluster", &ask(&["get", nodes, "--output=yaml"])?, words);

    let node = machine.node().await?;
    let mut member = story.site.member(&node).await?;
    let host = member.host();
    for kind in
        [&["dumpxml", machine.uid(), "--security-info"][..], &["dumpxml", machine.uid(), "--inactive"]]
    {
        assert_clean("the domain's XML", &host.virsh(kind)?, words);
    }
    assert_clean(
        "a command line or environment",
        &host.run(&[
            "sh",
            "-c",
            "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
        ])?,
        words,
    );
    let holders = holders(story.site.folder(), words)?;
    let seed = host.outside(&format!("/var/lib/holdfast/vms/{}/seed.img", machine.uid()));
    ensure!(holders.contains(&seed), "the search does not even find the seed: {holders:?}");
    let strange: Vec<_> = holders.iter().filter(|file| !may_hold(file, machine)).collect();
    assert!(strange.is_empty(), "the Secret stands in {strange:?}");
    let mode = std::fs::metadata(&seed).context("could not look at the seed")?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "mode of the seed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_hostname_and_user_data_reach_the_guest_and_the_secrets_bytes_nothing_else() -> Result<()> {
    story::tell("canary", async |story| {
        let canary = format!("canary-{}-of-the-coal-mine", uuid::Uuid::new_v4());
        let words = disguises(&canary);
        story.offer_image("debian").await?;
        story.offer_network().await?;
        story.offer_key().await?;
        let second = site::ssh_key(&story.site.folder().join("second"))?;
        let public = files::read(&second.with_extension("pub"))?;
        let key = json!({"metadata": {"name": "second"}, "spec": {"publicKey": public.trim()}});
        story.create::<SSHKey>(&key.to_string()).await?;
        let write = json!({"write_files": [{"path": "/etc/story", "content": canary}]});
        offer_secret(story, "seed", json!({"user-data": format!("#cloud-config\n{write}\n")})).await?;
        let blueprint = debian("deb")
            .cloud_init("hostname", "shop")
            .cloud_init("sshKeys", json!([{"name": "site"}, {"name": "second"}]))
            .cloud_init("userDataSecret", from_secret("seed"));
        let machine = story.machine(&blueprint).await?;
        machine.wait_condition("AddressKnown", "True", LATER).await?;

        let mut guest = machine.guest("debian").await?;
        guest.wait_ssh(LATER).await?;
        assert_eq!(guest.run(&["cloud-init", "status", "--wait"])?.trim(), "status: done");
        assert_eq!(guest.run(&["hostname"])?.trim(), "shop");
        assert_eq!(guest.run(&["sudo", "cat", "/etc/story"])?.trim(), canary);
        let authorized = guest.run(&["cat", ".ssh/authorized_keys"])?;
        assert_eq!(authorized.lines().filter(|line| line.starts_with("ssh-ed25519")).count(), 2);
        guest.key = second;
        guest.run(&["true"])?;
        assert_secret_stays_in_its_places(story, &machine, &words).await?;

        machine.delete().await?;
        machine.wait_gone(SOON).await?;
        let left = holders(story.site.folder(), &words)?;
        assert!(left.iter().all(|file| file.to_string_lossy().contains("state.db")), "left: {left:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_key_or_ssh_key_is_named_and_the_machine_starts_once_it_is_there() -> Result<()> {
    story::tell("missing", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        offer_secret(story, "half", json!({"other": "x"})).await?;
        let given = |name: &str, secret: &str| tiny(name).cloud_init("userDataSecret", from_secret(secret));
        let no_secret = story.machine(&given("no-secret", "late")).await?;
        let no_key = story.machine(&given("no-key", "half")).await?;
        let keys = json!([{"name": "late"}]);
        let no_ssh_key = story.machine(&tiny("no-ssh-key").cloud_init("sshKeys", keys)).await?;

        let field = "spec.cloudInit.userDataSecret:";
        for (machine, reason, sentence) in [
            (&no_secret, "SecretNotFound", format!("{field} there is no Secret late in namespace missing")),
            (&no_key, "SecretKeyNotFound", format!("{field} Secret half has no key user-data: add it")),
            (
                &no_ssh_key,
                "SSHKeyNotFound",
                "there is no SSHKey late in namespace missing: create it".to_owned(),
            ),
        ] {
            let said = machine.wait_unready(reason, SOON).await?;
            assert!(said.contains(&sentence), "{said}");
            machine.wait_condition("Stalled", "False", SOON).await?;
        }

        offer_secret(story, "late", json!({"user-data": "#tiny: deaf\n"})).await?;
        edit_secret(story, "half", json!({"user-data": "#tiny: deaf\n"})).await?;
        story
            .create::<SSHKey>(
                &json!({"metadata": {"name": "late"}, "spec": {"publicKey": public_key(story)?}}).to_string(),
            )
            .await?;
        for machine in [&no_secret, &no_key] {
            machine.wait_serial(HEARD, 1, 2 * SOON).await?;
            machine.wait_condition("Ready", "True", SOON).await?;
        }
        no_ssh_key.wait_condition("Ready", "True", 2 * SOON).await.map(drop)
    })
    .await
}

fn public_key(story: &Story<'_>) -> Result<String> {
    Ok(files::read(&story.site.ssh_key()?.with_extension("pub"))?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_key_that_is_none_is_refused_at_once_or_named_in_its_status() -> Result<()> {
    story::tell("no-key", async |story| {
        let offer = async |name: &str, key: &str| {
            let object = json!({"metadata": {"name": name}, "spec": {"publicKey": key}});
            story.create::<SSHKey>(&object.to_string()).await
        };
        let Err(refusal) = offer("none", "hello").await else { bail!("\"hello\" was accepted as a key") };
        let refusal = format!("{refusal:#}");
        assert!(refusal.contains("publicKey must be one line in OpenSSH form"), "{refusal}");

        offer("hollow", &format!("ssh-ed25519 {}", "A".repeat(68))).await?;
        let sentence = story
            .wait::<SSHKey, _>("refused", "hollow", SOON, |key| {
                let mut conditions = key.status.iter().flat_map(|status| &status.conditions);
                match conditions.find(|condition| condition.type_ == "Stalled" && condition.status == "True")
                {
                    Some(stalled) => Look::Done(stalled.message.clone()),
                    None => Look::NotYet("not stalled".to_owned()),
                }
            })
            .await?;
        assert!(sentence.starts_with("spec.publicKey is not an SSH public key"), "{sentence}");
        Ok(())
    })
    .await
}

async fn wait_pending(machine: &Machine<'_>, waits_for: WaitsFor) -> Result<()> {
    machine
        .wait(&format!("waiting for a {waits_for:?} with its Secret"), SOON, |object: &VirtualMachine| {
            let pending: BTreeMap<_, _> = object
                .status
                .iter()
                .flat_map(|status| &status.pending_changes)
                .map(|change| (change.field.as_str(), change.waits_for))
                .collect();
            if pending.get("spec.cloudInit.userDataSecret") == Some(&waits_for) {
                Look::Done(())
            } else {
                Look::NotYet(format!("{pending:?}"))
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_secret_waits_for_a_reseed_and_is_taken_along_by_it() -> Result<()> {
    story::tell_alone("edited", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        offer_secret(story, "seed", json!({"user-data": "#tiny:\n"})).await?;
        let blueprint = tiny("m").on("a").cloud_init("userDataSecret", from_secret("seed"));
        let machine = story.machine(&blueprint).await?;
        machine.wait_serial("holdfast-tiny ready boots=1", 1, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;

        edit_secret(story, "seed", json!({"user-data": "#tiny: reboot\n"})).await?;
        // Secrets are compared every ten minutes, and when the daemon starts.
        story.site.member("a").await?.stop_daemon()?;
        story.site.member("a").await?.start_daemon()?;
        wait_pending(&machine, WaitsFor::Reseed).await?;
        machine.wait_condition("Ready", "True", SOON).await?;

        // This edit the node has not looked at when the new seed is written.
        edit_secret(story, "seed", json!({"user-data": "#tiny: deaf\n"})).await?;
        machine.change(json!({"cloudInit": {"reseed": "again"}})).await?;
        wait_pending(&machine, WaitsFor::Restart).await?;
        machine.change(json!({"restartRequest": "now"})).await?;
        machine.wait_serial(HEARD, 1, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        let secrets: Api<Secret> = story.api();
        let current = secrets.get("seed").await?.metadata.resource_version.unwrap_or_default();
        let seed = machine.status().await?.seed.unwrap_or_default();
        assert_eq!(seed.secret_resource_version, current);
        assert!(machine.status().await?.pending_changes.is_empty());
        Ok(())
    })
    .await
}
