//! Where the bytes of a Secret lie.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_tests::install;
use holdfast_tests::machine::Machine;
use holdfast_tests::story::Story;

/// The text, and every form base64 gives it, wherever in a longer text it stands.
pub(crate) fn disguises(canary: &str) -> Vec<String> {
    let shifted = |shift: usize| {
        let text = STANDARD.encode([vec![b' '; shift], canary.as_bytes().to_vec()].concat());
        // The first and the last group hold bits of the neighbours too.
        text[4..text.len() - 4].to_owned()
    };
    [canary.to_owned()].into_iter().chain((0..3).map(shifted)).collect()
}

/// Every file below `folder` that holds one of the words.
pub(crate) fn holders(folder: &Path, words: &[String]) -> Result<Vec<PathBuf>> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--text", "--files-with-matches", "--fixed-strings", "--devices=skip"]);
    grep.args(["--no-messages", "--file=-"]).arg(folder);
    let mut child =
        grep.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("could not run grep")?;
    let mut input = child.stdin.take().context("grep takes no words")?;
    input.write_all(words.join("\n").as_bytes()).context("could not tell grep what to look for")?;
    drop(input);
    let found = child.wait_with_output().context("could not wait for grep")?;
    Ok(String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect())
}

fn assert_clean(place: &str, text: &str, words: &[String]) {
    let line = text.lines().find(|line| words.iter().any(|word| line.contains(word)));
    assert_eq!(line, None, "the Secret stands in {place}");
}

/// Files that hold the Secret by design: the cluster's own store, the seed, and the disk of the guest it was given to.
fn may_hold(file: &Path, machine: &Machine<'_>) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text = file.to_string_lossy();
    let own = text.contains(&format!("/vms/{}/", machine.uid()));
    name.starts_with("state.db") || (own && (name == "seed.img" || name == "disk-root.qcow2"))
}

/// Looks everywhere: objects, events, domain XML, command lines, and every file of the site.
pub(crate) async fn assert_confined(
    story: &Story<'_>,
    machine: &Machine<'_>,
    words: &[String],
) -> Result<()> {
    let ask = |what: &[&str]| install::kubectl(story.site.kubeconfig(), what);
    let kinds = "holdfast,events,configmaps,serviceaccounts,roles,rolebindings,leases";
    let objects =
        ask(&["get", kinds, "--namespace", &story.namespace, "--output=yaml", "--show-managed-fields"])?;
    assert!(objects.contains(machine.uid()));
    assert_clean("an object or event", &objects, words);
    let nodes = "hypervisornodes,nodeenrolments,clusterroles,clusterrolebindings";
    assert_clean("an object of the cluster", &ask(&["get", nodes, "--output=yaml"])?, words);

    let node = machine.node().await?;
    let mut member = story.site.member(&node).await?;
    let host = member.host();
    for kind in
        [&["dumpxml", machine.uid(), "--security-info"][..], &["dumpxml", machine.uid(), "--inactive"]]
    {
        assert_clean("the domain's XML", &host.virsh(kind)?, words);
    }
    assert_clean(
        "a command line or environment",
        &host.run(&[
            "sh",
            "-c",
            "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
        ])?,
        words,
    );
    let holders = holders(story.site.folder(), words)?;
    let seed = host.outside(&format!("/var/lib/holdfast/vms/{}/seed.img", machine.uid()));
    ensure!(holders.contains(&seed), "the search does not even find the seed: {holders:?}");
    let strange: Vec<_> = holders.iter().filter(|file| !may_hold(file, machine)).collect();
    assert!(strange.is_empty(), "the Secret stands in {strange:?}");
    let mode = std::fs::metadata(&seed).context("could not look at the seed")?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "mode of the seed");
    Ok(())
}
