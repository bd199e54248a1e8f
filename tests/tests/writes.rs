//! The store is the scarcest resource: what a virtual machine costs the controller in writes, and that peace costs none.

use std::time::Duration;

use anyhow::Result;
use holdfast_tests::office::Office;
use holdfast_tests::scene::{Scene, wait};

/// Longer than the controller gathers what is for information only.
const QUIET: Duration = Duration::from_secs(12);

async fn made(office: &Office, scene: &Scene, name: &str) -> Result<Vec<String>> {
    let before = office.proxy().writes().len();
    scene.create("default", name).await?;
    wait(office, name, async || Ok(scene.is_ready("default", name).await?.then_some(()))).await?;
    Ok(office.proxy().writes().split_off(before))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_machine_costs_three_writes_and_peace_costs_none() -> Result<()> {
    let (office, scene) = Scene::set("writes", &["a"]).await?;
    made(&office, &scene, "first").await?;
    tokio::time::sleep(QUIET).await;
    // Its finalizer with the annotation, its binding, and a right on the Secret that nobody named before; events aside.
    let second = made(&office, &scene, "second").await?;
    let (for_nodes, for_it): (Vec<_>, Vec<_>) =
        second.into_iter().partition(|write| write.contains("hypervisornodes"));
    assert_eq!(for_it.len(), 3, "{for_it:#?}");
    assert!(for_nodes.len() <= 1, "what is allocated is told at most once: {for_nodes:#?}");
    tokio::time::sleep(QUIET).await;
    let before = office.proxy().writes();
    tokio::time::sleep(QUIET).await;
    let after = office.proxy().writes();
    assert_eq!(before.len(), after.len(), "in peace: {:#?}", &after[before.len()..]);
    Ok(())
}
