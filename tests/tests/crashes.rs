//! The controller is killed after each of its writes, as a power cut would; the next one finishes the work, and nothing
//! is held by two nodes. The write that it would have made next arrives once all of it was undone: it brings nothing back,
//! and no more does a leader that slept through its Lease before that write and wakes. Guests play no part, so the nodes
//! are played by the test.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_api::names::{CONTROLLER, node_lease};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use holdfast_tests::acting_node::request;
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::office::Office;
use holdfast_tests::process::Process;
use holdfast_tests::proxy::Kept;
use holdfast_tests::scene::{Scene, wait};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::Signal;
use serde_json::json;

/// What the leader's Lease lives without renewal: a leader that slept for this long has lost it.
const LEASE: Duration = Duration::from_secs(15);
/// More writes than any of these needs; a run in which nothing was cut ends the search earlier.
const MOST_WRITES: usize = 40;

/// Kills the controller after this many writes of `work` and lets the next one finish. Returns whether there were so many.
async fn killed_after(
    office: &mut Office,
    writes: usize,
    work: impl AsyncFnOnce() -> Result<()>,
    done: impl AsyncFn() -> Result<bool>,
) -> Result<bool> {
    office.kill_controller();
    office.proxy().mend();
    work().await?;
    office.proxy().keep_after(writes);
    office.start_controller()?;
    let cut = wait(office, "the next write, or the end", async || {
        let (keeps, is_done) = (office.proxy().keeps(), done().await?);
        // Without a further write only the end shows that there were so many.
        Ok((keeps || is_done).then(|| keeps || office.proxy().is_cut()))
    });
    let cut = cut.await?;
    office.kill_controller();
    office.proxy().mend();
    office.start_controller()?;
    wait(office, "the work to be finished", async || Ok(done().await?.then_some(()))).await?;
    Ok(cut)
}

/// Delivers the writes of the leader that slept: what it had read is refused, and of what it makes nothing is left once
/// `undone` holds again. Returns what was taken.
async fn late_writes_bring_nothing_back(
    office: &Office,
    undone: impl AsyncFn() -> Result<bool>,
) -> Result<Vec<String>> {
    let taken = office.proxy().deliver(office.proxy().take_kept()).await?;
    ensure!(taken.iter().all(|write| write.starts_with("POST ")), "taken although it was read: {taken:#?}");
    wait(office, "late writes to be undone", async || Ok(undone().await?.then_some(()))).await?;
    Ok(taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_is_finished_by_the_next_controller() -> Result<()> {
    let (mut office, scene) = Scene::set("crashes-binding", &["a", "b"]).await?;
    for writes in 1..MOST_WRITES {
        let name = format!("vm-{writes}");
        let cut = killed_after(
            &mut office,
            writes,
            async || scene.create("default", &name).await,
            async || scene.is_ready("default", &name).await,
        );
        let cut = cut.await?;
        scene.delete("default", &name).await?;
        wait(&office, "it to be gone", async || Ok(scene.is_clear("default").await?.then_some(()))).await?;
        late_writes_bring_nothing_back(&office, async || scene.is_clear("default").await).await?;
        if !cut {
            return ensure_many(writes, 6);
        }
    }
    bail!("a binding takes more than {MOST_WRITES} writes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_finished_by_the_next_controller() -> Result<()> {
    let (mut office, scene) = Scene::set("crashes-deletion", &["a", "b"]).await?;
    for writes in 1..MOST_WRITES {
        let name = format!("vm-{writes}");
        scene.create("default", &name).await?;
        wait(&office, "it to be ready", async || Ok(scene.is_ready("default", &name).await?.then_some(())))
            .await?;
        let cut = killed_after(
            &mut office,
            writes,
            async || scene.delete("default", &name).await,
            async || scene.is_clear("default").await,
        );
        let cut = cut.await?;
        late_writes_bring_nothing_back(&office, async || scene.is_clear("default").await).await?;
        if !cut {
            return ensure_many(writes, 4);
        }
    }
    bail!("a deletion takes more than {MOST_WRITES} writes")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_is_finished_by_the_next_controller() -> Result<()> {
    let (mut office, _scene) = Scene::set("crashes-enrolment", &[]).await?;
    let asks = asking(&office).await?;
    let admin = office.admin().await?;
    for writes in 1..MOST_WRITES {
        let key = rcgen::KeyPair::generate().context("no key")?;
        let wanted = request(&format!("n{writes}"), &key)?;
        let name = wanted.name_any();
        let cut = killed_after(
            &mut office,
            writes,
            async || asks.create(&PostParams::default(), &wanted).await.map(drop).context("not asked"),
            async || has_certificate(&asks, &name).await,
        );
        let cut = cut.await?;
        let requests: Api<CertificateSigningRequest> = Api::all(admin.clone());
        let label = ListParams::default().labels(&format!("holdfast.dev/node=n{writes}"));
        ensure!(requests.list(&label).await?.items.len() == 1, "one request of the cluster, not more");
        let node = format!("n{writes}");
        remove(&office, &admin, &node).await?;
        late_writes_bring_nothing_back(&office, async || is_nobody(&admin, &node).await).await?;
        if !cut {
            return ensure_many(writes, 10);
        }
    }
    bail!("an enrolment takes more than {MOST_WRITES} writes")
}

/// Declares a host gone, and waits until its object is.
async fn remove(office: &Office, admin: &Client, node: &str) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(admin.clone());
    nodes.delete(node, &DeleteParams::default()).await.context("could not delete the node")?;
    wait(office, "the node to be gone", async || Ok(nodes.get_opt(node).await?.is_none().then_some(()))).await
}

/// Whether no node of this name has an identity, a right or a Lease.
async fn is_nobody(admin: &Client, node: &str) -> Result<bool> {
    let nodes: Api<HypervisorNode> = Api::all(admin.clone());
    let identity = nodes.get_opt(node).await?.map(|node| node.spec.identity).unwrap_or_default();
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "holdfast-system");
    let label = ListParams::default().labels(&format!("holdfast.dev/node={node}"));
    let (roles, cluster_roles): (Api<Role>, Api<ClusterRole>) =
        (Api::all(admin.clone()), Api::all(admin.clone()));
    let rights = roles.list(&label).await?.items.len() + cluster_roles.list(&label).await?.items.len();
    Ok(identity.is_empty() && rights == 0 && leases.get_opt(&node_lease(node)).await?.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_of_a_node_is_finished_by_the_next_controller() -> Result<()> {
    let (mut office, mut scene) = Scene::set("crashes-node", &["stays"]).await?;
    let admin = office.admin().await?;
    // Each round enrols a node.
    let step = if std::env::var_os("HOLDFAST_LONG").is_some() { 1 } else { 4 };
    for writes in (1..MOST_WRITES).step_by(step) {
        let (node, vm) = (format!("goes-{writes}"), format!("vm-{writes}"));
        scene.enter(&office, &node).await?;
        cordon(&admin, "stays", true).await?;
        scene.create("default", &vm).await?;
        let ready = async || Ok(scene.is_ready("default", &vm).await?.then_some(()));
        wait(&office, "it to be ready", ready).await?;
        ensure!(scene.node_of("default", &vm).await? == node, "the cordoned node got it");
        cordon(&admin, "stays", false).await?;
        scene.loses(&node);
        let cut = killed_after(
            &mut office,
            writes,
            async || declare_gone(&admin, &node).await,
            async || {
                let moved = scene.node_of("default", &vm).await? == "stays";
                Ok(moved && scene.is_ready("default", &vm).await? && is_nobody(&admin, &node).await?)
            },
        );
        let cut = cut.await?;
        scene.delete("default", &vm).await?;
        wait(&office, "it to be gone", async || Ok(scene.is_clear("default").await?.then_some(()))).await?;
        if !cut {
            return ensure_many(writes, 12);
        }
    }
    bail!("a removal takes more than {MOST_WRITES} writes")
}

/// Deletes a node that is silent, while no controller runs to see that for itself.
async fn declare_gone(admin: &Client, name: &str) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(admin.clone());
    let mut conditions = nodes.get(name).await?.status.unwrap_or_default().conditions;
    for ready in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
        "Unknown".clone_into(&mut ready.status);
    }
    let silent = Patch::Merge(json!({"status": {"conditions": conditions}}));
    nodes.patch_status(name, &PatchParams::default(), &silent).await.context("could not call it silent")?;
    nodes.delete(name, &DeleteParams::default()).await.map(drop).context("could not delete it")
}

async fn asking(office: &Office) -> Result<Api<NodeEnrolment>> {
    let file = office.folder().join("install.kubeconfig");
    kubeconfig::write(&file, office.server(), &Login::Token(&office.credential().await?))?;
    Ok(Api::all(kubeconfig::client(&file).await?))
}

async fn has_certificate(asks: &Api<NodeEnrolment>, name: &str) -> Result<bool> {
    let request = asks.get(name).await.context("could not read the request")?;
    Ok(request.status.is_some_and(|status| !status.certificate.is_empty()))
}

fn ensure_many(writes: usize, at_least: usize) -> Result<()> {
    ensure!(writes > at_least, "only {writes} writes were seen: the proxy counts too few");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_store_lost_is_given_back_and_not_to_another_node() -> Result<()> {
    let (mut office, scene) = Scene::set("crashes-store", &["a", "b"]).await?;
    scene.create("default", "web").await?;
    let ready = async || Ok(scene.is_ready("default", "web").await?.then_some(()));
    wait(&office, "it to be ready", ready).await?;
    let before = scene.node_of("default", "web").await?;
    office.kill_controller();
    let lost = Patch::Merge(json!({"status": {"nodeName": ""}}));
    let machines = scene.machines("default");
    let lost = machines.patch_status("web", &PatchParams::default(), &lost).await;
    lost.context("could not lose the name")?;
    cordon(&office.admin().await?, &before, true).await?;
    office.start_controller()?;
    let named = async || {
        let node = scene.node_of("default", "web").await?;
        Ok((!node.is_empty()).then_some(node))
    };
    assert_eq!(wait(&office, "it to be bound again", named).await?, before);
    Ok(())
}

/// A cordoned node gets nothing new; what it holds is not new.
async fn cordon(admin: &Client, node: &str, cordoned: bool) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(admin.clone());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    nodes.patch(node, &PatchParams::default(), &cordon).await.map(drop).context("could not cordon")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_virtual_machines_deletes_cleanly() -> Result<()> {
    let (office, scene) = Scene::set("crashes-namespace", &["a", "b"]).await?;
    let namespaces: Api<Namespace> = Api::all(office.admin().await?);
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}}))?;
    namespaces.create(&PostParams::default(), &namespace).await.context("no namespace")?;
    for name in ["one", "two", "three"] {
        scene.create("shop", name).await?;
        wait(&office, name, async || Ok(scene.is_ready("shop", name).await?.then_some(()))).await?;
    }
    namespaces.delete("shop", &DeleteParams::default()).await.context("could not delete")?;
    let gone = async || Ok(namespaces.get_opt("shop").await?.is_none().then_some(()));
    wait(&office, "the namespace to be gone", gone).await?;
    assert!(scene.nodes().iter().all(|node| node.held().is_empty()), "nothing is held any more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_deleted_releases_its_machines_and_loses_its_rights() -> Result<()> {
    let (office, scene) = Scene::set("crashes-removal", &["a", "b"]).await?;
    scene.create("default", "web").await?;
    let ready = async || Ok(scene.is_ready("default", "web").await?.then_some(()));
    wait(&office, "it to be ready", ready).await?;
    let before = scene.node_of("default", "web").await?;
    let nodes: Api<HypervisorNode> = Api::all(office.admin().await?);
    let reported = async || {
        let status = nodes.get(&before).await?.status.unwrap_or_default();
        Ok((!status.virtual_machines.is_empty()).then_some(()))
    };
    wait(&office, "its node to report it", reported).await?;
    scene.stops(&before);
    let delete = async || nodes.delete(&before, &DeleteParams::default()).await;
    let refused = delete().await.expect_err("it was Ready a moment ago").to_string();
    assert!(refused.contains("is heard from and has virtual machines"), "{refused}");
    wait(&office, "it to be lost, and deleted", async || Ok(delete().await.ok().map(drop))).await?;
    let moved = async || {
        let node = scene.node_of("default", "web").await?;
        Ok((!node.is_empty() && node != before).then_some(()))
    };
    wait(&office, "it to be on the other node", moved).await?;
    let gone = async || Ok(nodes.get_opt(&before).await?.is_none().then_some(()));
    wait(&office, "the node to be gone", gone).await?;
    let own = scene.node(&before)?.client();
    let leases: Api<Lease> = Api::namespaced(own, "holdfast-system");
    let refused = leases.get(&node_lease(&before)).await.expect_err("its rights are gone");
    assert!(refused.to_string().contains("forbidden"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_asked_to_end_hands_over_to_the_one_that_stands_by() -> Result<()> {
    let (mut office, scene) = Scene::set("handover", &["a"]).await?;
    let mut second = office.another("second")?;
    let log = second.log().to_owned();
    let says = |line: &str| Ok::<bool, anyhow::Error>(holdfast_tests::files::read(&log)?.contains(line));
    wait(&office, "the second to stand by", async || Ok(says("asking for the lead")?.then_some(()))).await?;
    ensure!(!says("leading")?, "two controllers lead");
    let ended = office.end_controller().context("there was no controller")?;
    ensure!(ended.success(), "asked to end, it ended with {ended}");
    scene.create("default", "after").await?;
    wait(&office, "the second's work", async || {
        second.must_run()?;
        Ok(scene.is_ready("default", "after").await?.then_some(()))
    })
    .await
}

/// A leader that sleeps, and the write that it has on its way.
struct Sleeper {
    leader: Process,
    late: Vec<Kept>,
}

/// Leaders that follow each other: each makes some writes, falls asleep before the next one and loses the lead.
struct Leaders {
    awake: Process,
    asleep: Vec<Sleeper>,
    writes: usize,
}

impl Leaders {
    async fn first(office: &mut Office, writes: usize) -> Result<Self> {
        office.kill_controller();
        run_out(office).await?;
        Ok(Self { awake: office.another("leader-0")?, asleep: Vec::new(), writes })
    }

    /// One after the other falls asleep over this work, until one of them finishes it.
    async fn sleep_over(&mut self, office: &Office, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let most = self.asleep.len() + MOST_WRITES;
        while self.asleep.len() < most {
            let keeps = wait(office, "the next write, or the end", async || {
                let (keeps, is_done) = (office.proxy().keeps(), done().await?);
                Ok((keeps || is_done).then_some(keeps))
            });
            if !keeps.await? {
                return Ok(());
            }
            self.awake.signal(Signal::SIGSTOP);
            let late = office.proxy().take_kept();
            office.proxy().keep_after(self.writes);
            run_out(office).await?;
            let next = office.another(&format!("leader-{}", self.asleep.len() + 1))?;
            let leader = std::mem::replace(&mut self.awake, next);
            self.asleep.push(Sleeper { leader, late });
        }
        bail!("{MOST_WRITES} leaders did not finish it")
    }

    /// All wake up: their writes arrive, they go on from there, and end.
    async fn wake(&mut self, office: &Office) -> Result<()> {
        for Sleeper { leader, late } in &mut self.asleep {
            let taken = office.proxy().deliver(std::mem::take(late)).await?;
            ensure!(
                taken.iter().all(|write| write.starts_with("POST ")),
                "taken although it was read: {taken:#?}"
            );
            leader.signal(Signal::SIGCONT);
        }
        for Sleeper { leader, .. } in &mut self.asleep {
            let ended = wait(office, "who lost the lead to end", async || Ok(leader.ended())).await?;
            let log = holdfast_tests::files::read(leader.log())?;
            ensure!(!ended.success() && log.contains("the lead was lost"), "it ended with {ended}: {log}");
        }
        self.awake.must_run()
    }
}

/// The leader's Lease runs out: a successor empties it so too, once its time is over.
async fn run_out(office: &Office) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(office.admin().await?, "holdfast-system");
    let empty =
        json!({"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null});
    let emptied =
        leases.patch(CONTROLLER, &PatchParams::default(), &Patch::Merge(json!({"spec": empty}))).await;
    emptied.map(drop).context("could not empty the Lease")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_sleeps_through_its_lease_before_a_write_brings_nothing_back() -> Result<()> {
    let (mut office, scene) = Scene::set("crashes-sleep", &["a", "b"]).await?;
    let long = std::env::var_os("HOLDFAST_LONG").is_some();
    let mut leaders = Leaders::first(&mut office, if long { 1 } else { 4 }).await?;

    office.proxy().keep_after(0);
    scene.create("default", "web").await?;
    leaders.sleep_over(&office, async || scene.is_ready("default", "web").await).await?;
    office.proxy().keep_after(0);
    scene.delete("default", "web").await?;
    leaders.sleep_over(&office, async || scene.is_clear("default").await).await?;
    if long {
        come_and_go(&office, &mut leaders).await?;
    }
    office.proxy().mend();
    let fell_asleep = Instant::now();
    wait(&office, "it to be gone", async || Ok(scene.is_clear("default").await?.then_some(()))).await?;
    println!("{} leaders sleep", leaders.asleep.len());
    ensure!(leaders.asleep.len() > if long { 20 } else { 2 }, "the proxy counts too few writes");

    tokio::time::sleep(LEASE.saturating_sub(fell_asleep.elapsed())).await;
    leaders.wake(&office).await?;
    let admin = office.admin().await?;
    wait(&office, "late writes to be undone", async || {
        let undone = scene.is_clear("default").await? && is_nobody(&admin, "goes").await?;
        Ok(undone.then_some(()))
    })
    .await
}

/// A node enrols and is removed, while leaders sleep over it.
async fn come_and_go(office: &Office, leaders: &mut Leaders) -> Result<()> {
    let (asks, admin) = (asking(office).await?, office.admin().await?);
    let wanted = request("goes", &rcgen::KeyPair::generate().context("no key")?)?;
    office.proxy().keep_after(0);
    asks.create(&PostParams::default(), &wanted).await.context("not asked")?;
    leaders.sleep_over(office, async || has_certificate(&asks, &wanted.name_any()).await).await?;
    let nodes: Api<HypervisorNode> = Api::all(admin.clone());
    office.proxy().keep_after(0);
    nodes.delete("goes", &DeleteParams::default()).await.context("could not delete the node")?;
    let gone = async || Ok(nodes.get_opt("goes").await?.is_none() && is_nobody(&admin, "goes").await?);
    leaders.sleep_over(office, gone).await
}
