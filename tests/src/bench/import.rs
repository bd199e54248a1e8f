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
use super::{Row, Value, server};
use crate::files;
use crate::story::Story;

const LABEL: &str = "bench";
const COPY: &str = "/var/lib/holdfast-files/import.copy";
const MUST: f64 = 1.15;
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
    let url = server::serve(story.site.member(NODE).await?.host(), source.clone())?;
    let (mut http, mut http_slowest, mut file) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        for way in [Way::Http, Way::File] {
            let digest = stamp(&source)?;
            let before = limits(story, &source, &url, way).await?;
            let ours = ours(story, &url, &digest, way, pair).await?;
            let after = limits(story, &source, &url, way).await?;
            let slowest = [ours, before.slowest, after.slowest];
            match way {
                Way::Http => {
                    http.push([ours, before.together, after.together]);
                    http_slowest.push(slowest);
                }
                Way::File => file.push(slowest),
            }
        }
    }
    files::remove_file(&source)?;
    let row = |id, what, limit, value, must, moon| Row {
        id,
        what,
        accelerator: "none",
        limit,
        value: Value::Ratio(value),
        must,
        moon,
    };
    Ok(vec![
        row("B7", "import from a folder", "max(openssl, dd fsync)", file, MUST, Some(1.03)),
        row("B7h", "import over http", "tee, openssl, dd fsync", http, MUST, Some(1.03)),
        // Server, transfer, hash and writing: on fewer than four cores they wait for each other, and no limit does all four.
        row(
            "B7h*",
            "the same, four cores wanted",
            "max(openssl, dd fsync)",
            http_slowest,
            f64::INFINITY,
            None,
        ),
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

/// Milliseconds of the limits of one import; all are measured anew each time, for the disk changes its mind.
struct Limits {
    /// The slower of hashing the file and of copying it with an fsync.
    slowest: f64,
    /// The same bytes from the same server hashed and copied at once, by `tee`, `openssl` and `dd`.
    together: f64,
}

async fn limits(story: &Story<'_>, path: &Path, url: &str, way: Way) -> Result<Limits> {
    let slowest = slowest(path)?;
    let together = match way {
        Way::Http => together(story, url).await?,
        Way::File => slowest,
    };
    Ok(Limits { slowest, together })
}

async fn together(story: &Story<'_>, url: &str) -> Result<f64> {
    let rest = url.strip_prefix("http://").context("the image server speaks no http")?;
    let (server, file) = rest.split_once('/').context("the image has no path")?;
    let (host, port) = server.split_once(':').context("the image server has no port")?;
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET /{file} HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n' >&3 && \
         tee >(openssl dgst -sha256 >/dev/null) <&3 | dd bs=1M iflag=fullblock conv=fsync status=none of={COPY} && rm {COPY}"
    );
    let mut member = story.site.member(NODE).await?;
    let begun = Instant::now();
    member.host().run(&["bash", "-c", &script])?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn slowest(path: &Path) -> Result<f64> {
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

async fn ours(story: &Story<'_>, url: &str, digest: &str, way: Way, pair: usize) -> Result<f64> {
    let (name, from) = match way {
        Way::Http => (format!("http-{pair}"), json!({"http": {"url": url}})),
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
