//! B7: an image into the cache, in one pass, against the slower of hashing it and copying it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_api::{HypervisorNode, VirtualMachineImage};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::daemon_log::{NODE, took};
use super::{Row, Value};
use crate::files;
use crate::image_server::Behaviour;
use crate::story::Story;

const LABEL: &str = "bench";
const SERVED: &str = "bench/import.raw";
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
enum Way {
    Http,
    File,
}

pub(super) async fn measure(story: &Story<'_>, pairs: usize, mib: u64) -> Result<Vec<Row>> {
    let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
    let labels = json!({"metadata": {"labels": {LABEL: "yes"}}});
    nodes
        .patch(NODE, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .context("could not label the node")?;
    let roots = story.site.member(NODE).await?.host().outside("/var/lib/holdfast-files");
    let source = roots.join("import.raw");
    fill(&source, mib)?;
    let (mut http, mut file) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for (way, pairs) in [(Way::Http, &mut http), (Way::File, &mut file)] {
            let digest = stamp(&source)?;
            let before = limit(story, &source, way).await?;
            let ours = ours(story, &source, &digest, way, pair).await?;
            pairs.push([ours, before, limit(story, &source, way).await?]);
        }
    }
    files::remove_file(&source)?;
    let row = |id, what, limit, value| Row {
        id,
        what,
        accelerator: "none",
        limit,
        value: Value::Ratio(value),
        must: 1.15,
        moon: Some(1.03),
    };
    Ok(vec![
        row("B7", "import over http", "max(openssl, dd fsync, cat)", http),
        row("B7f", "import from a folder", "max(openssl, dd fsync)", file),
    ])
}

fn fill(path: &Path, mib: u64) -> Result<()> {
    let mut random = File::open("/dev/urandom").context("could not open /dev/urandom")?.take(mib << 20);
    let mut file = File::create(path).context("could not make the image")?;
    std::io::copy(&mut random, &mut file).context("could not fill the image")?;
    file.flush().context("could not fill the image")
}

/// New first bytes make it another image.
fn stamp(path: &Path) -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("no random bytes")?;
    let file = OpenOptions::new().write(true).open(path).context("could not open the image")?;
    file.write_all_at(&bytes, 0).context("could not stamp the image")?;
    let output = Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(path).output();
    let output = output.context("peer missing: openssl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(format!("sha256:{}", text.split_whitespace().next().unwrap_or_default()))
}

/// Milliseconds of the slowest of the things that must be done; over http that may be the server and the way from it.
async fn limit(story: &Story<'_>, path: &Path, way: Way) -> Result<f64> {
    let local = local_limit(path)?;
    match way {
        Way::Http => Ok(local.max(fetched(story, path).await?)),
        Way::File => Ok(local),
    }
}

/// The same bytes from the same server by the same way, dropped at once.
async fn fetched(story: &Story<'_>, path: &Path) -> Result<f64> {
    let url = story.site.images().serve(SERVED, path, Behaviour::Good);
    let rest = url.strip_prefix("http://").context("the image server speaks no http")?;
    let (server, file) = rest.split_once('/').context("the image has no path")?;
    let (host, port) = server.split_once(':').context("the image server has no port")?;
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET /{file} HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n' >&3 && cat <&3 >/dev/null"
    );
    let mut member = story.site.member(NODE).await?;
    let begun = Instant::now();
    member.host().run(&["bash", "-c", &script])?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn local_limit(path: &Path) -> Result<f64> {
    let copy = path.with_extension("copy");
    let hash = timed(Command::new("openssl").args(["dgst", "-sha256"]).arg(path))?;
    let written = timed(
        Command::new("dd")
            .args(["bs=1M", "conv=fsync", "status=none"])
            .args([format!("if={}", path.display()), format!("of={}", copy.display())]),
    )?;
    files::remove_file(&copy)?;
    Ok(hash.max(written))
}

fn timed(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("could not run the limit")?;
    ensure!(status.success(), "the limit failed");
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

async fn ours(story: &Story<'_>, source: &Path, digest: &str, way: Way, pair: usize) -> Result<f64> {
    let (name, from) = match way {
        Way::Http => {
            let url = story.site.images().serve(SERVED, source, Behaviour::Good);
            (format!("http-{pair}"), json!({"http": {"url": url}}))
        }
        Way::File => {
            (format!("file-{pair}"), json!({"file": {"path": "/var/lib/holdfast-files/import.raw"}}))
        }
    };
    let object = json!({
        "metadata": {"name": name},
        "spec": {"source": from, "digest": digest, "format": "raw", "prefetch": {"nodeSelector": {LABEL: "yes"}}},
    });
    story.create::<VirtualMachineImage>(&object.to_string()).await?;
    let took = took(story, &[("message", "image verified"), ("digest", digest)], LIMIT).await?;
    story
        .api::<VirtualMachineImage>()
        .delete(&name, &DeleteParams::default())
        .await
        .context("could not delete it")?;
    let cached = story.site.member(NODE).await?.host().outside("/var/lib/holdfast/images");
    files::remove_file(&cached.join(format!("{}.img", digest.replace(':', "-"))))?;
    Ok(took)
}
