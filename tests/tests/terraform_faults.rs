//! Terraform when something breaks: the line to the API, the program, the objects, the credentials. Nothing is made twice,
//! nothing is left without a state that knows it, and what went wrong is told with what to do next.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_api::SSHKey;
use holdfast_tests::desk::{Desk, KEY, Running, lost_machine};
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::proxy::Proxy;
use holdfast_tests::scene::{ONE_AT_A_TIME, wait};
use holdfast_tests::terraform::{Cli, Workspace, said};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

/// The mark of a create, until the first update.
const MARK: &str = "terraform.holdfast.dev/call";
/// kube asks again after some milliseconds: by then the answer is lost for sure.
const LOST: Duration = Duration::from_millis(500);

fn key(more: &str) -> String {
    format!(
        "resource \"holdfast_ssh_key\" \"alice\" {{\n  name = \"alice\"\n  public_key = \"{KEY}\"\n{more}\n}}"
    )
}

fn unbroken(output: &Output) -> String {
    said(output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Terraform speaks through a proxy from now on.
async fn behind_a_proxy(desk: &mut Desk) -> Result<Proxy> {
    let token = desk.token().await?;
    let proxy = Proxy::start(desk.office.server()).await?;
    let file = desk.office.folder().join("terraform.kubeconfig");
    proxy.write_kubeconfig(&file, &token)?;
    desk.terraform.set("KUBE_CONFIG_PATH", &file.display().to_string());
    Ok(proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_is_lost_is_no_object_that_is_lost() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-lost").await?;
    let proxy = behind_a_proxy(&mut desk).await?;
    let terraform = &desk.terraform;

    terraform.configure(&key(""))?;
    proxy.cut_after(1);
    let apply = Running::start(terraform.command(&["apply", "-auto-approve"]))?;
    wait(&desk.office, "the write", async || Ok(proxy.is_cut().then_some(()))).await?;
    tokio::time::sleep(LOST).await;
    proxy.mend();
    let output = apply.output()?;
    ensure!(output.status.success(), "the object is not recognised: {}", said(&output));
    let sent: Vec<_> = proxy.writes().into_iter().filter(|it| it.ends_with("/sshkeys/alice")).collect();
    ensure!(sent.len() >= 2, "it was never asked twice: {sent:#?}");
    terraform.must_be_settled()?;
    let made = desk.keys().get("alice").await?;
    assert_eq!(terraform.values("holdfast_ssh_key.alice")?["uid"], json!(made.uid()));
    assert!(made.annotations().contains_key(MARK), "{:?}", made.annotations());

    // The mark is no drift, no attribute, and goes with the next update.
    terraform.apply(&key("  annotations = { note = \"a\" }"))?;
    let changed = desk.keys().get("alice").await?;
    assert_eq!(changed.annotations().keys().collect::<Vec<_>>(), ["note"]);
    terraform.succeed(&["destroy", "-auto-approve"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_api_that_goes_away_in_an_apply_leaves_what_the_next_one_completes() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-away").await?;
    let proxy = behind_a_proxy(&mut desk).await?;
    let terraform = &desk.terraform;

    let team = format!(
        "resource \"holdfast_ssh_key\" \"team\" {{\n  for_each = toset([\"a\", \"b\", \"c\", \"d\"])\n  name = each.key\n  \
         public_key = \"{KEY}\"\n  timeouts = {{ create = \"5s\" }}\n}}"
    );
    terraform.configure(&team)?;
    proxy.cut_after(2);
    terraform.fail(&["apply", "-auto-approve"])?;
    let made = desk.keys().list(&ListParams::default()).await?;
    assert_eq!(made.items.len(), 2, "two writes passed");
    let known = terraform.succeed(&["state", "list"])?;
    for key in &made.items {
        let address = format!("holdfast_ssh_key.team[\"{}\"]", key.name_any());
        assert!(known.contains(&address), "{address} is an orphan: {known}");
    }
    proxy.mend();
    terraform.apply(&team)?;
    let all = desk.keys().list(&ListParams::default()).await?;
    assert_eq!(all.items.len(), 4);
    for key in &all.items {
        let address = format!("holdfast_ssh_key.team[\"{}\"]", key.name_any());
        assert_eq!(terraform.values(&address)?["uid"], json!(key.uid()), "{address}");
    }
    terraform.succeed(&["destroy", "-auto-approve"])?;

    // Away from the beginning: told at once, by its name.
    let port = holdfast_tests::ports::free()?;
    desk.terraform.set("KUBE_CONFIG_PATH", "");
    desk.terraform.set("KUBE_HOST", &format!("https://127.0.0.1:{port}"));
    desk.terraform.set("KUBE_TOKEN", "nobody");
    let source = "data \"holdfast_nodes\" \"all\" {}";
    desk.terraform.configure(source)?;
    let away = desk.terraform.fail(&["plan"])?;
    assert!(away.contains(&format!("the API at 127.0.0.1:{port} does not answer")), "{away}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_apply_that_is_cut_short_leaves_no_orphan() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let desk = Desk::furnish("tf-cut").await?;
    let (terraform, address) = (&desk.terraform, "holdfast_virtual_machine.web");
    let apply = || Running::start(terraform.command(&["apply", "-auto-approve"]));
    terraform.configure(&lost_machine(""))?;

    // Interrupted while it waits; a second apply meanwhile is kept out by the lock.
    let waiting = apply()?;
    let made = desk.wait_for_machine("web").await?;
    let locked = terraform.fail(&["apply", "-auto-approve"])?;
    assert!(locked.contains("Error acquiring the state lock"), "{locked}");
    waiting.interrupt()?;
    let output = waiting.output()?;
    assert!(!output.status.success() && unbroken(&output).contains("is in the state"), "{}", said(&output));
    assert_eq!(terraform.values(address)?["uid"], json!(made.uid()));
    terraform.succeed(&["destroy", "-auto-approve"])?;
    assert!(desk.machines().get_opt("web").await?.is_none());

    // Killed while it waits: nobody could say what exists, so the next apply says how to go on.
    let waiting = apply()?;
    desk.wait_for_machine("web").await?;
    waiting.kill_provider()?;
    let output = waiting.output()?;
    assert!(!output.status.success(), "{}", said(&output));
    let next = terraform.fail(&["apply", "-auto-approve"])?;
    assert!(next.contains("exists already and is not taken over"), "{next}");
    assert!(next.contains("terraform import holdfast_virtual_machine.<name> default/web"), "{next}");
    terraform.succeed(&["import", address, "default/web"])?;
    terraform.must_be_settled().context("after the import")?;
    terraform.succeed(&["destroy", "-auto-approve"])?;
    assert!(desk.machines().get_opt("web").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_applies_at_once_one_makes_the_object() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let desk = Desk::furnish("tf-two").await?;
    let folder = desk.office.folder().join("terraform-too");
    let rival = Workspace::open(Cli::OpenTofu, folder, &desk.office.plane().kubeconfig())?;
    for _ in 0..5 {
        let mut applies = Vec::new();
        for workspace in [&desk.terraform, &rival] {
            workspace.configure(&key(""))?;
            applies.push(Running::start(workspace.command(&["apply", "-auto-approve"]))?);
        }
        let outputs = applies.into_iter().map(Running::output).collect::<Result<Vec<_>>>()?;
        let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|it| it.status.success());
        let all = outputs.iter().map(unbroken).collect::<String>();
        assert_eq!((won.len(), lost.len()), (1, 1), "{all}");
        assert!(unbroken(lost[0]).contains("exists already and is not taken over"), "{all}");
        let winner = if outputs[0].status.success() { &desk.terraform } else { &rival };
        winner.must_be_settled()?;
        winner.succeed(&["destroy", "-auto-approve"])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_that_changed_hands_after_the_plan_is_left_alone() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut desk = Desk::furnish("tf-hands").await?;
    let terraform = &desk.terraform;
    terraform.apply(&key(""))?;

    // Another of the same name has taken its place.
    terraform.configure(&key("  labels = { a = \"b\" }"))?;
    terraform.succeed(&["plan", "-out=saved.plan"])?;
    desk.keys().delete("alice", &DeleteParams::default()).await?;
    let other: SSHKey = serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "SSHKey", "metadata": {"name": "alice"}, "spec": {"publicKey": KEY},
    }))?;
    // What is deleted may have to wait for its finalizers.
    let gone = async || Ok(desk.keys().get_opt("alice").await?.is_none().then_some(()));
    wait(&desk.office, "the end of the key", gone).await?;
    let other = desk.keys().create(&PostParams::default(), &other).await?;
    let refused = terraform.fail(&["apply", "saved.plan"])?;
    assert!(refused.contains("Another object has the name of SSHKey default/alice"), "{refused}");
    assert!(desk.keys().get("alice").await?.labels().is_empty());
    let told = unbroken(&terraform.run(&["plan"])?);
    assert!(told.contains("was made again outside of this configuration"), "{told}");
    terraform.apply(&key("  labels = { a = \"b\" }"))?;
    assert_eq!(terraform.values("holdfast_ssh_key.alice")?["uid"], json!(other.uid()));

    // Nothing is there any more.
    terraform.configure(&key("  labels = { a = \"c\" }"))?;
    terraform.succeed(&["plan", "-out=saved.plan"])?;
    desk.keys().delete("alice", &DeleteParams::default()).await?;
    wait(&desk.office, "the end of the key", gone).await?;
    let refused = terraform.fail(&["apply", "saved.plan"])?;
    assert!(refused.contains("is not there any more. Plan again to create it"), "{refused}");
    terraform.apply(&key("  labels = { a = \"c\" }"))?;

    // Credentials that are no longer taken.
    let file = desk.office.folder().join("expired.kubeconfig");
    kubeconfig::write(&file, desk.office.server(), &Login::Token("of-yesterday"))?;
    desk.terraform.set("KUBE_CONFIG_PATH", &file.display().to_string());
    let refused = desk.terraform.fail(&["plan"])?;
    assert!(refused.contains("API does not accept the credentials"), "{refused}");
    assert!(refused.contains("A token or certificate may have expired: renew it"), "{refused}");
    assert!(!refused.contains("of-yesterday"), "{refused}");
    Ok(())
}
