//! Absence is not a command: what nobody of ours made is never touched, and a guest whose object is gone without a word
//! runs on until a person discards it.

use anyhow::{Context, Result, ensure};
use holdfast_api::node::HypervisorNodeStatus;
use holdfast_api::{HypervisorNode, VirtualMachine};
use holdfast_tests::files;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

const STARTED: &str = "holdfast-tiny ready";

async fn offer(story: &Story<'_>) -> Result<()> {
    story.offer_image("tiny").await?;
    story.offer_network().await.map(drop)
}

async fn running<'a>(story: &'a Story<'a>, name: &str, node: &str) -> Result<Machine<'a>> {
    let blueprint = tiny(name).on(node).with("terminationGracePeriodSeconds", 1);
    let machine = story.machine(&blueprint).await?;
    ready(&machine).await?;
    Ok(machine)
}

async fn ready(machine: &Machine<'_>) -> Result<()> {
    machine.wait_condition("Ready", "True", SOON).await?;
    machine.wait_serial(STARTED, 1, SOON).await
}

async fn processes(story: &Story<'_>, node: &str, uid: &str) -> Result<String> {
    story.site.member(node).await?.processes_of(uid)
}

async fn restart_daemon(story: &Story<'_>, node: &str) -> Result<()> {
    let mut member = story.site.member(node).await?;
    member.kill_daemon();
    member.start_daemon()
}

fn nodes(story: &Story<'_>) -> Api<HypervisorNode> {
    Api::all(story.admin.clone())
}

async fn wait_node(
    story: &Story<'_>,
    node: &str,
    what: &str,
    judge: impl Fn(&HypervisorNodeStatus) -> bool,
) -> Result<()> {
    wait_for(&format!("{node}: {what}"), SOON, async || {
        let status = nodes(story).get(node).await.context("could not read the node")?.status;
        let status = status.unwrap_or_default();
        let seen = || format!("orphans {:?}, allocated {:?}", status.orphans, status.allocated);
        Ok(if judge(&status) { Look::Done(()) } else { Look::NotYet(seen()) })
    })
    .await
}

async fn wait_orphan(story: &Story<'_>, node: &str, uid: &str) -> Result<()> {
    let listed = |status: &HypervisorNodeStatus| status.orphans.iter().any(|orphan| orphan.uid == uid);
    wait_node(story, node, &format!("{uid} among the orphans"), listed).await
}

async fn wait_promised(story: &Story<'_>, node: &str, cpu: i32) -> Result<()> {
    let promised =
        |status: &HypervisorNodeStatus| status.allocated.as_ref().is_some_and(|room| room.cpu == cpu);
    wait_node(story, node, &format!("{cpu} processors promised"), promised).await
}

async fn change_node(story: &Story<'_>, node: &str, spec: serde_json::Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let outcome = nodes(story).patch(node, &PatchParams::default(), &patch).await;
    outcome.map(drop).with_context(|| format!("could not change node {node}"))
}

/// Discards an orphan and waits until nothing of it is left.
async fn discard(story: &Story<'_>, node: &str, uid: &str) -> Result<()> {
    change_node(story, node, json!({"discard": [uid]})).await?;
    wait_clear(story, node, uid).await?;
    wait_node(story, node, "no orphans", |status| status.orphans.is_empty()).await?;
    change_node(story, node, json!({"discard": []})).await
}

async fn wait_clear(story: &Story<'_>, node: &str, uid: &str) -> Result<()> {
    wait_for(&format!("nothing of {uid} to be left on {node}"), SOON, async || {
        let remains = story.site.member(node).await?.remains_of(uid)?;
        Ok(if remains.is_empty() { Look::Done(()) } else { Look::NotYet(remains) })
    })
    .await
}

/// Takes an object out of the store behind the node's back: deleted and stripped of what holds it.
async fn vanish(story: &Story<'_>, machine: &Machine<'_>) -> Result<()> {
    let machines: Api<VirtualMachine> = Api::namespaced(story.admin.clone(), &story.namespace);
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    machine.delete().await?;
    machines.patch(machine.name(), &PatchParams::default(), &strip).await.context("could not strip it")?;
    machine.wait_gone(SOON).await
}

/// A guest of somebody else: no disk, so its firmware waits for ever.
async fn define_foreign(story: &Story<'_>, node: &str, name: &str, uid: &str) -> Result<()> {
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uid}</uuid><memory unit='MiB'>32</memory>\
         <os><type arch='x86_64'>hvm</type></os></domain>"
    );
    let mut member = story.site.member(node).await?;
    let inside = format!("/var/lib/holdfast-files/{uid}.xml");
    files::write(&member.host().outside(&inside), xml)?;
    member.host().virsh(&["define", &inside])?;
    member.host().virsh(&["start", uid]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_not_ours_is_never_touched_whatever_it_is_called() -> Result<()> {
    story::tell_alone("foreign", async |story| {
        offer(story).await?;
        let foreign = ["00000000-0000-4000-8000-00000000f001", "00000000-0000-4000-8000-00000000f002"];
        define_foreign(story, "a", "somebody-else", foreign[0]).await?;
        define_foreign(story, "a", &format!("hf-{}", foreign[1]), foreign[1]).await?;
        let before = [processes(story, "a", foreign[0]).await?, processes(story, "a", foreign[1]).await?];
        ensure!(before.iter().all(|pids| !pids.is_empty()), "no foreign guest runs");

        restart_daemon(story, "a").await?;
        let ours = running(story, "m", "a").await?;
        restart_daemon(story, "a").await?;
        ours.delete().await?;
        ours.wait_gone(SOON).await?;
        restart_daemon(story, "a").await?;
        wait_clear(story, "a", ours.uid()).await?;

        let after = [processes(story, "a", foreign[0]).await?, processes(story, "a", foreign[1]).await?];
        ensure!(before == after, "a foreign guest was touched: {before:?} {after:?}");
        wait_node(story, "a", "no orphans", |status| status.orphans.is_empty()).await?;
        let mut member = story.site.member("a").await?;
        for uid in foreign {
            member.host().virsh(&["destroy", uid])?;
            member.host().virsh(&["undefine", uid])?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_domain_with_the_uuid_of_an_object_is_left_alone_and_the_object_says_so() -> Result<()> {
    story::tell_alone("taken", async |story| {
        offer(story).await?;
        story.site.member("a").await?.kill_daemon();
        let machine = story.machine(&tiny("m").on("a")).await?;
        define_foreign(story, "a", "somebody-else", machine.uid()).await?;
        let before = processes(story, "a", machine.uid()).await?;
        story.site.member("a").await?.start_daemon()?;
        let sentence = machine.wait_unready("ForeignDomain", SOON).await?;
        ensure!(sentence.contains("virsh undefine"), "no remedy is named: {sentence}");
        ensure!(processes(story, "a", machine.uid()).await? == before, "the foreign guest was touched");
        let mut member = story.site.member("a").await?;
        member.host().virsh(&["destroy", machine.uid()])?;
        member.host().virsh(&["undefine", machine.uid()])?;
        drop(member);
        ready(&machine).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_object_vanished_runs_on_as_an_orphan_until_a_person_discards_it() -> Result<()> {
    story::tell_alone("vanished", async |story| {
        offer(story).await?;
        let old = running(story, "web", "a").await?;
        wait_promised(story, "a", 1).await?;
        let pids = processes(story, "a", old.uid()).await?;
        story.site.member("a").await?.stop_daemon()?;
        vanish(story, &old).await?;
        story.site.member("a").await?.start_daemon()?;
        wait_orphan(story, "a", old.uid()).await?;
        wait_promised(story, "a", 1).await?;

        // The same name with another UID is another virtual machine.
        let new = running(story, "web", "a").await?;
        ensure!(new.uid() != old.uid());
        wait_promised(story, "a", 2).await?;
        wait_orphan(story, "a", old.uid()).await?;
        ensure!(processes(story, "a", old.uid()).await? == pids, "the orphan was touched");
        let new_pids = processes(story, "a", new.uid()).await?;

        // A mistyped UID destroys nothing that an object asks for, not even while the daemon has no list yet.
        change_node(story, "a", json!({"discard": [new.uid()]})).await?;
        restart_daemon(story, "a").await?;
        change_node(story, "a", json!({"discard": [new.uid(), old.uid()]})).await?;
        wait_clear(story, "a", old.uid()).await?;
        ensure!(processes(story, "a", new.uid()).await? == new_pids, "its namesake was touched");
        wait_node(story, "a", "no orphans", |status| status.orphans.is_empty()).await?;
        change_node(story, "a", json!({"discard": []})).await?;
        wait_promised(story, "a", 1).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_deleted_releases_its_guests_and_finds_them_as_orphans_when_it_returns() -> Result<()>
{
    story::tell_alone("released", async |story| {
        offer(story).await?;
        change_node(story, "a", json!({"unschedulable": true})).await?;
        let machine = story.machine(&tiny("m").with("terminationGracePeriodSeconds", 1)).await?;
        ready(&machine).await?;
        ensure!(machine.node().await? == "b", "the cordoned node got it");
        change_node(story, "a", json!({"unschedulable": false})).await?;
        let old = processes(story, "b", machine.uid()).await?;

        let delete = async || nodes(story).delete("b", &DeleteParams::default()).await;
        let refused = delete().await.expect_err("it is alive").to_string();
        ensure!(refused.contains("is heard from and has virtual machines"), "{refused}");
        story.site.member("b").await?.kill_daemon();
        wait_for("the silent node to be deleted", SOON, async || {
            Ok(delete().await.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Done(())))
        })
        .await?;
        machine
            .wait("on the other node", SOON, |object| {
                let node = object.status.as_ref().map(|status| status.node_name.clone()).unwrap_or_default();
                if node == "a" { Look::Done(()) } else { Look::NotYet(format!("on {node:?}")) }
            })
            .await?;
        ready(&machine).await?;
        let events = holdfast_tests::install::kubectl(
            story.site.kubeconfig(),
            &["get", "events", "--namespace", &story.namespace],
        )?;
        ensure!(events.contains("Released"), "no event tells the release:\n{events}");
        let new = processes(story, "a", machine.uid()).await?;

        // A daemon that starts doubts its certificate at once; the removed node waits for a person.
        restart_daemon(story, "b").await?;
        story.site.wait_enrolled(&story.admin, "b").await?;
        wait_orphan(story, "b", machine.uid()).await?;
        ensure!(processes(story, "b", machine.uid()).await? == old, "the old guest was touched");
        discard(story, "b", machine.uid()).await?;
        ensure!(processes(story, "a", machine.uid()).await? == new, "the new guest was touched");
        machine.wait_condition("Ready", "True", SOON).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_running_guests_deletes_cleanly() -> Result<()> {
    story::tell_alone("namespaces", async |outer| {
        let namespaces: Api<Namespace> = Api::all(outer.admin.clone());
        let mut space = Namespace::default();
        space.metadata.name = Some("doomed".to_owned());
        namespaces.create(&PostParams::default(), &space).await.context("could not make a namespace")?;
        let (client, admin) = (outer.admin.clone(), outer.admin.clone());
        let story = &Story { site: outer.site, namespace: "doomed".to_owned(), client, admin };
        offer(story).await?;
        let held =
            [("one", "a"), ("two", "b"), ("three", "b")].map(|(name, node)| running(story, name, node));
        let held = futures::future::try_join_all(held).await?;
        namespaces.delete("doomed", &DeleteParams::default()).await.context("could not delete it")?;
        wait_for("the namespace to be gone", SOON, async || {
            let found = namespaces.get_opt("doomed").await.context("could not read it")?;
            Ok(found.map_or(Look::Done(()), |found| Look::NotYet(format!("{:?}", found.status))))
        })
        .await?;
        for (machine, node) in held.iter().zip(["a", "b", "b"]) {
            let remains = outer.site.member(node).await?.remains_of(machine.uid())?;
            ensure!(remains.is_empty(), "left of {}:\n{remains}", machine.name());
        }
        for node in ["a", "b"] {
            let left = |status: &HypervisorNodeStatus| !status.namespaces.iter().any(|it| it == "doomed");
            wait_node(outer, node, "doomed served no more", left).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_removal_left_behind_is_an_orphan_until_a_person_discards_it() -> Result<()> {
    story::tell_alone("leftover", async |story| {
        let uid = "6f1c5a52-93d1-4a0e-9a7e-2b1f0c8d4e11";
        let folder = story.site.member("a").await?.host().outside(&format!("/var/lib/holdfast/vms/{uid}"));
        files::create_folder(&folder)?;
        files::write(&folder.join("disk-root.qcow2"), "what a guest wrote")?;
        wait_orphan(story, "a", uid).await?;
        ensure!(folder.exists(), "nothing goes without a person's word");
        change_node(story, "a", json!({"discard": [uid]})).await?;
        wait_for("the folder to be gone", SOON, async || {
            Ok(if folder.exists() { Look::NotYet("still there".to_owned()) } else { Look::Done(()) })
        })
        .await?;
        let gone = |status: &HypervisorNodeStatus| !status.orphans.iter().any(|orphan| orphan.uid == uid);
        wait_node(story, "a", &format!("{uid} no orphan any more"), gone).await?;
        change_node(story, "a", json!({"discard": []})).await
    })
    .await
}
