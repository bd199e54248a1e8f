//! The demo's site, as `make demo` and `make demo-down` bring it up and take it down.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::install::kubectl;
use holdfast_tests::{files, peer};

/// All that an installation could leave behind, whatever its namespace.
const KINDS: &str = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings,\
    validatingadmissionpolicies,validatingadmissionpolicybindings,leases,certificatesigningrequests";

#[tokio::test(flavor = "multi_thread")]
async fn a_given_cluster_is_used_and_left_as_it_was() -> Result<()> {
    let root = peer::repository().join("target/sites/demo");
    files::remove_folder(&root)?;
    let plane = ControlPlane::start(&root.join("theirs")).await?;
    let kubeconfig = plane.kubeconfig();
    kubectl(&kubeconfig, &["create", "namespace", "theirs"])?;
    let before = objects(&kubeconfig)?;

    let site = Site { folder: root.join("ours") };
    site.say(&["up", "--kubeconfig", &kubeconfig.to_string_lossy()])?;
    kubectl(&kubeconfig, &["wait", "--for=condition=Ready", "--timeout=60s", "hypervisornode/node-1"])?;
    let environment = site.say(&["env"])?;
    ensure!(environment.contains(&*kubeconfig.to_string_lossy()), "{environment}");
    ensure!(!site.folder.join("plane").exists(), "it has a control plane of its own beside the given one");

    site.say(&["up", "--kubeconfig", &kubeconfig.to_string_lossy()])?;
    site.say(&["down"])?;
    ensure!(!site.folder.exists(), "{} is still there", site.folder.display());
    let after = objects(&kubeconfig)?;
    let left: Vec<_> = after.difference(&before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    ensure!(left.is_empty() && lost.is_empty(), "left behind: {left:?}; taken along: {lost:?}");
    Ok(())
}

struct Site {
    folder: PathBuf,
}

impl Site {
    fn say(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(peer::ours("holdfast-site")?);
        command.arg("--dir").arg(&self.folder).args(words);
        let output = command.output().context("could not run holdfast-site")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "holdfast-site {words:?} failed: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A site that a failed test leaves would run on: its supervisor is nobody's child.
impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.say(&["down"]);
    }
}

fn objects(kubeconfig: &Path) -> Result<BTreeSet<String>> {
    let listed = kubectl(kubeconfig, &["get", KINDS, "--all-namespaces", "--no-headers", "-o", "name"])?;
    Ok(listed.lines().map(str::to_owned).collect())
}
