//! A node whose image cache lies on a filesystem of its own, small enough to fill.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_tests::files;
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::machine::{SOON, tiny};
use holdfast_tests::story::Story;
use holdfast_tests::wait::{Look, wait_for};

use super::image_files::ImageFiles;
use super::{STARTED, try_machine};

const HOST: &str = "a";
const CACHE: &str = "/var/lib/holdfast/images";
/// What the daemon keeps free (`reserved.storage`, 64 MiB), the neighbour's image (16), the new one (48), and some air.
const SIZE: &str = "size=144m";
/// More than the air.
const FILLER: &str = "80M";
/// Appended to a guest's image, so that there is time to fill the disk while it comes.
const BALLAST: usize = 32 << 20;
/// Half a minute for the whole image; the daemon looks at the disk every few MiB.
const BYTES_PER_SECOND: u64 = 2 << 20;
/// What the product promises.
const PROMISE: Duration = Duration::from_secs(10);

/// Puts the host's image cache onto a small filesystem.
pub(crate) async fn cover_image_cache(story: &Story<'_>) -> Result<()> {
    let mut member = story.site.member(HOST).await?;
    member.stop_daemon()?;
    member.host().run(&["mount", "-t", "tmpfs", "-o", SIZE, "images", CACHE])?;
    member.start_daemon()
}

/// Gives the host its own image cache back.
pub(crate) async fn uncover_image_cache(story: &Story<'_>) -> Result<()> {
    let mut member = story.site.member(HOST).await?;
    member.stop_daemon()?;
    member.host().run(&["umount", "--lazy", CACHE])?;
    member.start_daemon()
}

pub(crate) async fn fills_and_is_freed(story: &Story<'_>) -> Result<()> {
    story.offer_image("tiny").await?;
    story.offer_network().await?;
    let neighbour = story.machine(&tiny("neighbour").on(HOST)).await?;
    neighbour.wait_serial(STARTED, 1, SOON).await?;
    let before = neighbour.qemu().await?;

    let offered = ImageFiles::open(story)?;
    let file = large(&offered)?;
    let image = offered.serve(&file, "qcow2", Behaviour::Throttled(BYTES_PER_SECOND))?;
    let machine = try_machine(story, HOST, "large", &image).await?;
    wait_partial(story).await?;
    on_host(story, &["fallocate", "--length", FILLER, &filler()]).await?;
    let full = Instant::now();
    let sentence = machine.wait_unready("DiskFull", 5 * PROMISE).await?;
    tracing::info!(took = ?full.elapsed(), promised = ?PROMISE, "the full disk was named");
    ensure!(sentence.contains("free space on the node, then the node continues by itself"), "{sentence}");
    machine.wait_condition("Stalled", "False", SOON).await?;

    offered.address(&file, Behaviour::Good);
    on_host(story, &["rm", &filler()]).await?;
    let freed = Instant::now();
    machine.wait_condition("Ready", "True", SOON).await?;
    tracing::info!(took = ?freed.elapsed(), "the guest was ready after there was room again");

    assert_eq!(neighbour.qemu().await?, before);
    assert_eq!(neighbour.serial().await?.matches(STARTED).count(), 1);
    neighbour.wait_condition("Ready", "True", SOON).await.map(drop)
}

fn large(offered: &ImageFiles<'_>) -> Result<PathBuf> {
    let file = offered.bootable("large")?;
    let mut bytes = std::fs::read(&file).context("could not read the image")?;
    bytes.resize(bytes.len() + BALLAST, 0x5a);
    files::write(&file, bytes)?;
    Ok(file)
}

/// Waits until some of the image has come.
async fn wait_partial(story: &Story<'_>) -> Result<()> {
    wait_for("the first bytes of the image", SOON, async || {
        let listed = on_host(story, &["find", CACHE, "-name", "*.part", "-size", "+1M"]).await?;
        Ok(if listed.is_empty() { Look::NotYet("none yet".to_owned()) } else { Look::Done(()) })
    })
    .await
}

async fn on_host(story: &Story<'_>, words: &[&str]) -> Result<String> {
    story.site.member(HOST).await?.host().run(words)
}

fn filler() -> String {
    format!("{CACHE}/filler")
}
