//! Run strategies, restarts, pause and crashes, each with a real guest.

use anyhow::Result;
use holdfast_api::VirtualMachine;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::Look;
use serde_json::json;

const STARTED: &str = "holdfast-tiny ready";

/// What every machine of these stories needs.
async fn set_up(story: &Story<'_>) -> Result<()> {
    story.offer_image("tiny").await?;
    story.offer_network().await.map(drop)
}

async fn wait_restarts(machine: &Machine<'_>, at_least: i32) -> Result<()> {
    machine
        .wait(&format!("restarted {at_least} times"), SOON, |object: &VirtualMachine| {
            let count = object.status.as_ref().and_then(|status| status.restart_count).unwrap_or_default();
            if count >= at_least { Look::Done(()) } else { Look::NotYet(format!("restartCount {count}")) }
        })
        .await
}

async fn wait_running(machine: &Machine<'_>, running: bool) -> Result<()> {
    let status = if running { "True" } else { "False" };
    machine.wait_condition("Running", status, SOON).await?;
    machine.wait_condition("Ready", "True", SOON).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn always_starts_a_guest_again_that_powered_itself_off() -> Result<()> {
    story::tell("always", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").that("poweroff-after=3")).await?;
        machine.wait_serial("ready boots=2 previous=clean", 1, SOON).await?;
        wait_restarts(&machine, 1).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rerun_on_failure_leaves_a_guest_off_that_powered_itself_off_and_restarts_a_killed_one() -> Result<()>
{
    story::tell("rerun", async |story| {
        set_up(story).await?;
        let tidy = tiny("tidy").with("runStrategy", "RerunOnFailure").that("poweroff-after=3");
        let killed = tiny("killed").with("runStrategy", "RerunOnFailure");
        let (tidy, killed) = (story.machine(&tidy).await?, story.machine(&killed).await?);
        killed.wait_serial(STARTED, 1, SOON).await?;
        killed.crash().await?;
        killed.wait_serial("ready boots=2 previous=unclean", 1, SOON).await?;
        wait_restarts(&killed, 1).await?;
        tidy.wait_serial("leaving how=poweroff", 1, SOON).await?;
        wait_running(&tidy, false).await?;
        assert_eq!(tidy.serial().await?.matches(STARTED).count(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn once_starts_a_guest_once_whatever_ends_it() -> Result<()> {
    story::tell("once", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").with("runStrategy", "Once")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.crash().await?;
        machine.wait_condition("Running", "False", SOON).await?;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!(machine.qemu().await?, None);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_machine_is_ready_starts_when_asked_and_powers_off_in_order() -> Result<()> {
    story::tell("halted", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").with("runStrategy", "Halted")).await?;
        wait_running(&machine, false).await?;
        machine.change(json!({"runStrategy": "Always"})).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        wait_running(&machine, true).await?;
        machine.change(json!({"runStrategy": "Halted"})).await?;
        wait_running(&machine, false).await?;
        assert!(machine.serial().await?.contains("leaving how=poweroff why=button"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_strategy_leaves_a_running_guest_alone_but_halted_and_every_other_starts_it()
-> Result<()> {
    story::tell("strategies", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        let first = machine.qemu().await?;
        for strategy in ["RerunOnFailure", "Once", "Always", "Once", "RerunOnFailure", "Always"] {
            machine.change(json!({"runStrategy": strategy})).await?;
            wait_running(&machine, true).await?;
        }
        assert_eq!(machine.qemu().await?, first);
        for (boots, strategy) in [(2, "RerunOnFailure"), (3, "Once"), (4, "Always")] {
            machine.change(json!({"runStrategy": "Halted"})).await?;
            wait_running(&machine, false).await?;
            machine.change(json!({"runStrategy": strategy})).await?;
            machine.wait_serial(&format!("ready boots={boots} previous=clean"), 1, SOON).await?;
            wait_running(&machine, true).await?;
        }
        assert_eq!(machine.status().await?.restart_count, Some(0), "nothing here was the guest's own doing");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_guest_starts_on_request_or_under_always_and_not_under_rerun_on_failure() -> Result<()> {
    story::tell("completed", async |story| {
        set_up(story).await?;
        let once = tiny("m").with("runStrategy", "Once").that("poweroff-after=3");
        let machine = story.machine(&once).await?;
        machine.wait_ready("Completed", SOON).await?;
        machine.change(json!({"runStrategy": "RerunOnFailure"})).await?;
        machine.wait_ready("Completed", SOON).await?;
        machine.change(json!({"restartRequest": "again"})).await?;
        machine.wait_serial("ready boots=2 previous=clean", 1, SOON).await?;
        machine.wait_ready("Completed", SOON).await?;
        machine.change(json!({"runStrategy": "Always"})).await?;
        machine.wait_serial("ready boots=3 previous=clean", 1, SOON).await?;
        assert_eq!(machine.serial().await?.matches(STARTED).count(), 3);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ends_again_and_again_waits_and_counts() -> Result<()> {
    story::tell("back-off", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").that("poweroff-after=1")).await?;
        let sentence = machine.wait_unready("CrashLoopBackOff", SOON).await?;
        assert!(sentence.contains("serial log"), "{sentence}");
        wait_restarts(&machine, 2).await?;
        machine.wait_serial("ready boots=3 previous=clean", 1, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_is_restarted_halted_and_deleted_in_order() -> Result<()> {
    story::tell("paused-ends", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.change(json!({"paused": true})).await?;
        machine.wait_ready("Paused", SOON).await?;
        machine.change(json!({"paused": false, "restartRequest": "now"})).await?;
        machine.wait_serial("ready boots=2 previous=clean", 1, SOON).await?;
        machine.change(json!({"paused": true})).await?;
        machine.wait_ready("Paused", SOON).await?;
        machine.change(json!({"runStrategy": "Halted"})).await?;
        machine.wait_ready("Halted", SOON).await?;
        machine.wait_serial("leaving how=poweroff why=button", 2, SOON).await?;
        machine.change(json!({"runStrategy": "Always"})).await?;
        machine.wait_ready("Paused", SOON).await?;
        machine.delete().await?;
        machine.wait_gone(SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_deaf_to_its_power_button_is_stopped_by_force_after_its_grace() -> Result<()> {
    story::tell("deaf", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").with("terminationGracePeriodSeconds", 5).that("deaf")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.change(json!({"runStrategy": "Halted"})).await?;
        machine.wait_serial("power button ignored", 1, SOON).await?;
        wait_running(&machine, false).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_keeps_its_user_and_changes_it_at_its_next_start() -> Result<()> {
    const NEXT: u32 = 2_100_100_000;
    story::tell_alone("users", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").on("a")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        let before = (machine.qemu().await?, machine.user().await?);
        story.site.member("a").await?.use_guest_uids(NEXT)?;
        // Judged by the daemon with the new range.
        machine.change(json!({"terminationGracePeriodSeconds": 5})).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        assert_eq!((machine.qemu().await?, machine.user().await?), before);
        machine.crash().await?;
        machine.wait_serial(STARTED, 2, SOON).await?;
        let (uid, _) = machine.user().await?;
        assert!((NEXT..NEXT + 65_536).contains(&uid), "{uid}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_request_restarts_once_and_the_same_value_never_again() -> Result<()> {
    story::tell("restart", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m").with("restartRequest", "at-creation")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.change(json!({"restartRequest": "first"})).await?;
        machine.wait_serial("ready boots=2 previous=clean", 1, SOON).await?;
        machine.change(json!({"restartRequest": ""})).await?;
        machine.change(json!({"restartRequest": "first"})).await?;
        wait_running(&machine, true).await?;
        assert_eq!(machine.serial().await?.matches(STARTED).count(), 2);
        assert_eq!(machine.status().await?.last_restart_request, "first");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_keeps_its_process_and_goes_on_when_resumed() -> Result<()> {
    story::tell("paused", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        let before = machine.qemu().await?;
        machine.change(json!({"paused": true})).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        assert_eq!(machine.domain_state().await?, "paused");
        machine.change(json!({"paused": false})).await?;
        wait_running(&machine, true).await?;
        assert_eq!(machine.domain_state().await?, "running");
        assert_eq!(machine.qemu().await?, before);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_cpu_waits_for_the_next_start_and_is_listed_until_then() -> Result<()> {
    story::tell("pending", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.change(json!({"cpu": 2})).await?;
        machine.wait_condition("RestartRequired", "True", SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        let status = machine.status().await?;
        assert_eq!(status.pending_changes.len(), 1, "{:?}", status.pending_changes);
        assert_eq!(status.applied.map(|applied| applied.cpu), Some(1));
        machine.change(json!({"restartRequest": "now"})).await?;
        machine.wait_serial(STARTED, 2, SOON).await?;
        machine.wait_condition("RestartRequired", "False", SOON).await?;
        let status = machine.status().await?;
        assert!(status.pending_changes.is_empty(), "{:?}", status.pending_changes);
        assert_eq!(status.applied.map(|applied| applied.cpu), Some(2));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_a_larger_disk_and_a_further_one_wait_for_the_next_start_and_the_guest_then_has_them()
-> Result<()> {
    story::tell("sizes", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        let disks = json!([
            {"name": "root", "size": "96Mi", "image": {"name": "tiny"}},
            {"name": "data", "size": "16Mi", "blank": {}},
        ]);
        machine.change(json!({"memory": "160Mi", "disks": disks})).await?;
        machine.wait_condition("RestartRequired", "True", SOON).await?;
        let pending = machine.status().await?.pending_changes;
        let fields: Vec<_> = pending.iter().map(|change| change.field.as_str()).collect();
        for field in ["memory", "disks"] {
            assert!(fields.iter().any(|pending| pending.contains(field)), "{field} is not in {fields:?}");
        }
        machine.change(json!({"restartRequest": "now"})).await?;
        machine.wait_serial(STARTED, 2, SOON).await?;
        let serial = machine.serial().await?;
        for disk in [format!("bytes={} serial=root", 96 << 20), format!("bytes={} serial=data", 16 << 20)] {
            assert!(serial.contains(&disk), "no {disk:?} in {serial}");
        }
        machine.wait_condition("RestartRequired", "False", SOON).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_image_is_refused_with_what_to_do_instead() -> Result<()> {
    story::tell("image-change", async |story| {
        set_up(story).await?;
        let machine = story.machine(&tiny("m")).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        let running = machine.qemu().await?;
        let other = json!({"disks": [{"name": "root", "size": "64Mi", "image": {"name": "other"}}]});
        let refusal = machine.change(other).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refusal.contains("the source of a disk cannot change"), "{refusal}");
        wait_running(&machine, true).await?;
        assert_eq!(machine.qemu().await?, running);
        Ok(())
    })
    .await
}
