//! Guests outlive everything around them: the API server, the daemon, libvirtd; and a host that lost power brings them
//! back without asking anybody.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_api::HypervisorNode;
use holdfast_api::virtual_machine::VirtualMachineStatus;
use holdfast_tests::link::Mode;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::{Look, wait_for};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use nix::sys::signal::{Signal, kill};

const STARTED: &str = "holdfast-tiny ready";
/// Restarts of libvirtd; the long run is the promised figure.
const SAMPLE: usize = 6;
const LONG: usize = 50;
/// The daemon is to be back within 2 s; a busy machine gets five times that.
const BACK: Duration = Duration::from_secs(10);
/// A libvirt that hangs is to show within this.
const SHOWN: Duration = Duration::from_secs(30);
/// A node is lost 40 s after its last sign; several times that.
const NOTICED: Duration = Duration::from_secs(180);

async fn running_machine<'a>(story: &'a Story<'a>, node: &str) -> Result<Machine<'a>> {
    story.offer_image("tiny").await?;
    story.offer_network().await?;
    machine(story, "m", node).await
}

async fn machine<'a>(story: &'a Story<'a>, name: &str, node: &str) -> Result<Machine<'a>> {
    let machine = story.machine(&tiny(name).on(node)).await?;
    machine.wait_serial(STARTED, 1, SOON).await?;
    machine.wait_condition("Ready", "True", SOON).await?;
    Ok(machine)
}

/// The guest's serial log read on the host itself, since there may be no API to ask where it is.
async fn boots(story: &Story<'_>, node: &str, machine: &Machine<'_>) -> Result<usize> {
    let mut member = story.site.member(node).await?;
    let log = member.host().outside(&format!("/var/lib/holdfast/vms/{}/serial.log", machine.uid()));
    Ok(holdfast_tests::files::read(&log)?.matches(STARTED).count())
}

async fn wait_boots(story: &Story<'_>, node: &str, machine: &Machine<'_>, times: usize) -> Result<()> {
    wait_for(&format!("boot {times} of the guest"), SOON, async || {
        let seen = boots(story, node, machine).await?;
        Ok(if seen >= times { Look::Done(()) } else { Look::NotYet(format!("{seen} boots")) })
    })
    .await
}

async fn qemu(story: &Story<'_>, node: &str, machine: &Machine<'_>) -> Result<String> {
    let mut member = story.site.member(node).await?;
    member.host().run(&["pgrep", "--full", &format!("qemu-system.* -uuid {}", machine.uid())])
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_guests_run_on_crashed_ones_restart_and_a_reboot_brings_them_back() -> Result<()> {
    story::tell_alone("no-api", async |story| {
        let machine = running_machine(story, "a").await?;
        let before = qemu(story, "a", &machine).await?;
        story.site.cluster().await.own()?.stop_apiserver();

        // The daemon restarts, adopts the guest and leaves it alone.
        story.site.member("a").await?.kill_daemon();
        story.site.member("a").await?.start_daemon()?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        ensure!(qemu(story, "a", &machine).await? == before, "the restarted daemon touched the guest");

        story.site.member("a").await?.host().run(&["kill", "-9", before.trim()])?;
        wait_boots(story, "a", &machine, 2).await?;

        story.site.member("a").await?.reboot()?;
        wait_boots(story, "a", &machine, 3).await?;
        let rebooted = qemu(story, "a", &machine).await?;

        story.site.cluster().await.own()?.start_apiserver().await?;
        machine.wait_condition("Ready", "True", NOTICED).await?;
        ensure!(qemu(story, "a", &machine).await? == rebooted, "the return of the API restarted the guest");
        ensure!(boots(story, "a", &machine).await? == 3, "the guest booted more often than it had to");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_the_api_and_one_whose_libvirt_hangs_say_so_keep_their_guests_and_recover()
-> Result<()> {
    story::tell_alone("cut-off", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        // Side by side, since both do little but wait.
        tokio::try_join!(cut_off(story), hung(story)).map(drop)
    })
    .await
}

/// A node that cannot reach the API is lost, keeps its guest, and is found again.
async fn cut_off(story: &Story<'_>) -> Result<()> {
    let machine = machine(story, "m", "b").await?;
    let before = qemu(story, "b", &machine).await?;
    story.site.member("b").await?.api().set(Mode::Stall);
    machine.wait_condition("Ready", "Unknown", NOTICED).await?;
    ensure!(machine.node().await? == "b", "a guest of a lost node was given away");
    story.site.member("b").await?.api().set(Mode::Up);
    machine.wait_condition("Ready", "True", NOTICED).await?;
    ensure!(qemu(story, "b", &machine).await? == before, "the guest was touched");
    Ok(())
}

/// libvirtd is stopped, so it takes connections and never answers.
async fn hung(story: &Story<'_>) -> Result<()> {
    let seen = machine(story, "seen", "a").await?;
    seen.wait_condition("AddressKnown", "True", SOON).await?;
    let (guest, before) = (qemu(story, "a", &seen).await?, seen.status().await?);
    let libvirtd = story.site.member("a").await?.host().libvirtd()?.pid().context("no libvirtd runs")?;
    kill(libvirtd, Signal::SIGSTOP).context("could not stop libvirtd")?;
    let stopped = Instant::now();
    says_unreachable(story, &seen, &before).await?;
    tracing::info!(took = ?stopped.elapsed(), promised = ?SHOWN, "a libvirt that hangs showed");
    let late = story.machine(&tiny("late").on("a")).await?;
    let sentence = late.wait_unready("NoNodeFits", SOON).await?;
    ensure!(sentence.contains("libvirt does not answer"), "{sentence}");

    // At the first look of a daemon that knows nothing, too.
    story.site.member("a").await?.kill_daemon();
    story.site.member("a").await?.start_daemon()?;
    let long = std::env::var_os("HOLDFAST_LONG").is_some();
    let pause = Duration::from_secs(if long { 120 } else { 45 });
    tokio::time::sleep(pause.saturating_sub(stopped.elapsed())).await;
    says_unreachable(story, &seen, &before).await?;
    ensure!(late.status().await?.node_name.is_empty(), "a node whose libvirt hangs was given a machine");
    ensure!(story.site.member("a").await?.daemon()?.ended().is_none(), "the daemon ended for it");

    kill(libvirtd, Signal::SIGCONT).context("could not let libvirtd go on")?;
    let goes_on = Instant::now();
    seen.wait_condition("Ready", "True", SOON).await?;
    late.wait_condition("Ready", "True", SOON).await?;
    tracing::info!(took = ?goes_on.elapsed(), "all was well after libvirt went on");
    ensure!(qemu(story, "a", &seen).await? == guest, "the guest was touched");
    Ok(())
}

/// The node and its machine both say so, within five times what is promised, and the rest of the status stands.
async fn says_unreachable(
    story: &Story<'_>,
    machine: &Machine<'_>,
    before: &VirtualMachineStatus,
) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
    let reason = |conditions: &[Condition]| {
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        ready.map(|ready| format!("{}, {}", ready.status, ready.reason)).unwrap_or_default()
    };
    wait_for("the node and its machine to say that libvirt hangs", 5 * SHOWN, async || {
        let node = nodes.get("a").await.context("could not read the node")?.status.unwrap_or_default();
        let seen = (reason(&node.conditions), reason(&machine.status().await?.conditions));
        let told = ("False, HypervisorUnreachable", "Unknown, HypervisorUnreachable");
        let both = (seen.0.as_str(), seen.1.as_str()) == told;
        Ok(if both { Look::Done(()) } else { Look::NotYet(format!("{seen:?}")) })
    })
    .await?;
    let now = machine.status().await?;
    ensure!(
        now.addresses == before.addresses,
        "addresses were {:?}, are {:?}",
        before.addresses,
        now.addresses
    );
    ensure!(now.printable_status == before.printable_status, "it prints {:?}", now.printable_status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_libvirtd_lose_no_guest_and_the_daemon_is_soon_back() -> Result<()> {
    story::tell_alone("libvirtd", async |story| {
        let machine = running_machine(story, "a").await?;
        let before = qemu(story, "a", &machine).await?;
        let mut slowest = Duration::ZERO;
        let restarts = if std::env::var_os("HOLDFAST_LONG").is_some() { LONG } else { SAMPLE };
        for round in 0..restarts {
            slowest = slowest.max(restart_libvirtd(story, "a", round % 2 == 0).await?);
        }
        ensure!(qemu(story, "a", &machine).await? == before, "a restart of libvirtd touched the guest");
        ensure!(boots(story, "a", &machine).await? == 1, "the guest was started again");
        machine.wait_condition("Ready", "True", SOON).await?;
        println!("{restarts} restarts of libvirtd; the daemon was back after {slowest:?} at the latest");
        ensure!(slowest <= BACK, "the daemon was back only after {slowest:?}");
        Ok(())
    })
    .await
}

/// Ends libvirtd, in order or by a crash, and starts it; returns how long after it answers the daemon is back.
async fn restart_libvirtd(story: &Story<'_>, node: &str, crash: bool) -> Result<Duration> {
    let mut member = story.site.member(node).await?;
    let log = member.host().folder().join("logs/holdfast-node.log");
    let connections = || {
        Ok::<usize, anyhow::Error>(holdfast_tests::files::read(&log)?.matches("connected to libvirt").count())
    };
    let before = connections()?;
    let libvirtd = member.host().libvirtd()?;
    if crash {
        libvirtd.kill_9();
    } else {
        libvirtd.stop();
    }
    member.host().start_libvirtd()?;
    let answers = Instant::now();
    wait_for("the daemon to be back at libvirt", SOON, async || {
        let now = connections()?;
        Ok(if now > before { Look::Done(()) } else { Look::NotYet(format!("{now} connections")) })
    })
    .await?;
    Ok(answers.elapsed())
}
