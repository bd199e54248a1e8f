//! What a guest is given at birth: keys, a hostname, and a Secret whose bytes reach the guest and nothing else.

#[path = "secrets/search.rs"]
mod search;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use holdfast_api::virtual_machine::WaitsFor;
use holdfast_api::{SSHKey, VirtualMachine};
use holdfast_tests::machine::{LATER, Machine, SOON, debian, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::Look;
use holdfast_tests::{files, site};
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

#[tokio::test(flavor = "multi_thread")]
async fn keys_hostname_and_user_data_reach_the_guest_and_the_secrets_bytes_nothing_else() -> Result<()> {
    story::tell("canary", async |story| {
        let canary = format!("canary-{}-of-the-coal-mine", uuid::Uuid::new_v4());
        let words = search::disguises(&canary);
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
        search::assert_confined(story, &machine, &words).await?;

        machine.delete().await?;
        machine.wait_gone(SOON).await?;
        let left = search::holders(story.site.folder(), &words)?;
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
