//! What a plan asks of the API, counted where it arrives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use holdfast_tests::control_plane::audit;
use holdfast_tests::desk::{Desk, machines};
use holdfast_tests::install;
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::scene::ONE_AT_A_TIME;
use holdfast_tests::terraform::{Cli, Workspace, said};
use kube::api::DeleteParams;

/// As many as nobody would want to ask for one by one.
const MANY: usize = 100;
/// So many of a kind are asked for one by one before a list is taken.
const FEW: usize = 2;

/// What a command asked of the API: verb and kind, and how often.
fn asked(desk: &Desk, command: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, usize>> {
    let audit = desk.office.plane().audit();
    let mark = audit.mark();
    command()?;
    let mut requests = audit.since(mark)?;
    requests.retain(|it| it.user().starts_with("system:serviceaccount:default:"));
    Ok(audit::count(&requests))
}

fn count(asked: &BTreeMap<String, usize>, verb: &str) -> usize {
    asked.get(&format!("{verb} virtualmachines")).copied().unwrap_or_default()
}

/// A plan that changes nothing, with the parallelism that people have.
fn settled(terraform: &Workspace) -> Result<()> {
    let output = terraform.run(&["plan", "-detailed-exitcode"])?;
    ensure!(output.status.code() == Some(0), "not empty: {}", said(&output));
    Ok(())
}

/// The way to the API for who has that token.
fn account(desk: &Desk, token: &str, name: &str) -> Result<PathBuf> {
    let file = desk.office.folder().join(format!("{name}.kubeconfig"));
    kubeconfig::write(&file, desk.office.server(), &Login::Token(token))?;
    Ok(file)
}

/// A token of somebody who may read each virtual machine whose name is known, and list none.
async fn reader(desk: &Desk) -> Result<String> {
    let kubeconfig = desk.office.plane().kubeconfig();
    for words in [
        ["create", "serviceaccount", "reader"].as_slice(),
        &["create", "role", "reader", "--verb=get", "--resource=virtualmachines.holdfast.dev"],
        &["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"],
    ] {
        install::kubectl(&kubeconfig, words)?;
    }
    install::account_token(&desk.admin, "default", "reader").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_lists_a_kind_once_instead_of_asking_for_each_object() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let desk = Desk::furnish("tf-reads").await?;
    desk.make_room().await?;
    let everything = account(&desk, &desk.token().await?, "everything")?;
    let reads = account(&desk, &reader(&desk).await?, "reads")?;
    for cli in Cli::here() {
        let told = tell(&desk, cli, &everything, &reads).await;
        told.with_context(|| format!("with {}: {}", cli.word(), desk.office.logs()))?;
    }
    Ok(())
}

async fn tell(desk: &Desk, cli: Cli, everything: &Path, reads: &Path) -> Result<()> {
    let mut terraform = Workspace::open(cli, desk.office.folder().join(cli.word()), everything)?;
    terraform.apply(&machines(MANY))?;

    let no_op = asked(desk, || settled(&terraform))?;
    assert_eq!(count(&no_op, "list"), 1, "{no_op:?}");
    assert!(count(&no_op, "get") <= FEW, "{no_op:?}");
    assert_eq!(no_op.values().sum::<usize>(), 1 + count(&no_op, "get"), "and nothing else: {no_op:?}");

    // Who asks for one does not pay for all.
    let one =
        asked(desk, || terraform.succeed(&["plan", "-target=holdfast_virtual_machine.m[7]"]).map(drop))?;
    assert_eq!((count(&one, "list"), count(&one, "get")), (0, 1), "{one:?}");

    // Who may not list still plans.
    terraform.set("KUBE_CONFIG_PATH", &reads.display().to_string());
    let refused = asked(desk, || settled(&terraform))?;
    assert_eq!((count(&refused, "list"), count(&refused, "get")), (1, MANY), "{refused:?}");
    terraform.set("KUBE_CONFIG_PATH", &everything.display().to_string());

    // What is not in the list is gone.
    desk.machines().delete("m-42", &DeleteParams::default()).await.context("could not delete it")?;
    let planned = terraform.planned(&machines(MANY))?;
    assert_eq!(planned["holdfast_virtual_machine.m[42]"], ["create"]);
    assert_eq!(planned["holdfast_virtual_machine.m[43]"], ["no-op"]);
    terraform.apply(&machines(MANY))?;
    terraform.succeed(&["destroy", "-auto-approve", "-parallelism=40"])?;
    Ok(())
}
