//! Guests outlive everything around them: the API server, the daemon, libvirtd; and a host that lost power brings them
//! back without asking anybody.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_tests::link::Mode;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::{Look, wait_for};

const STARTED: &str = "holdfast-tiny ready";
/// Restarts of libvirtd; the long run is the promised figure.
const SAMPLE: usize = 6;
const LONG: usize = 50;
/// The daemon is to be back within 2 s; a busy machine gets five times that.
const BACK: Duration = Duration::from_secs(10);
/// A node is lost 40 s after its last sign; several times that.
const NOTICED: Duration = Duration::from_secs(180);

async fn running_machine<'a>(story: &'a Story<'a>, node: &str) -> Result<Machine<'a>> {
    story.offer_image("tiny").await?;
    story.offer_network().await?;
    let machine = story.machine(&tiny("m").on(node)).await?;
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
async fn a_node_that_cannot_reach_the_api_is_lost_keeps_its_guest_and_is_found_again() -> Result<()> {
    story::tell_alone("cut-off", async |story| {
        let machine = running_machine(story, "b").await?;
        let before = qemu(story, "b", &machine).await?;
        story.site.member("b").await?.api().set(Mode::Stall);
        machine.wait_condition("Ready", "Unknown", NOTICED).await?;
        ensure!(machine.node().await? == "b", "a guest of a lost node was given away");
        story.site.member("b").await?.api().set(Mode::Up);
        machine.wait_condition("Ready", "True", NOTICED).await?;
        ensure!(qemu(story, "b", &machine).await? == before, "the guest was touched");
        Ok(())
    })
    .await
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
