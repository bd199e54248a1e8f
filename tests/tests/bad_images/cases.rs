//! What can be wrong with an image, and what is said of it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_tests::guest_image;
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::story::Story;
use serde_json::{Value, json};

use super::image_files::{ImageFiles, image, no_digest};

/// The folder that the hosts' configuration allows `file` sources in.
pub(crate) const ALLOWED: &str = "/var/lib/holdfast-files";
const METADATA_SERVICE: &str = "http://169.254.169.254/latest/meta-data";

/// What ends the trouble.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Help {
    /// Only an edit: the machine is `Stalled`.
    Edit,
    /// Somebody's work elsewhere, or time.
    Elsewhere,
}

/// An image, and what becomes of a machine that names it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) image: Value,
    pub(crate) reason: &'static str,
    /// What the sentence contains.
    pub(crate) sentence: String,
    pub(crate) help: Help,
}

fn case(
    name: &'static str,
    image: Value,
    reason: &'static str,
    sentence: impl Into<String>,
    help: Help,
) -> Case {
    Case { name, image, reason, sentence: sentence.into(), help }
}

/// Servers that do not give what was promised.
pub(crate) fn broken_sources(files: &ImageFiles<'_>) -> Result<Vec<Case>> {
    let raw = |name: &str, behaviour| files.serve(&files.plain(name)?, "raw", behaviour);
    let wrong = files.plain("wrong")?;
    // What a short answer holds could be guessed at.
    let found = format!("does not have the digest {}; correct", no_digest(1));
    let url = files.address(&wrong, Behaviour::Good);
    let wrong = image(&json!({"http": {"url": url}}), &no_digest(1), "raw");
    Ok(vec![
        case("wrong-digest", wrong, "DigestMismatch", found, Help::Elsewhere),
        case(
            "not-found",
            raw("gone", Behaviour::NotFound)?,
            "ImageNotFound",
            "there is no image at",
            Help::Elsewhere,
        ),
        case(
            "web-page",
            raw("portal", Behaviour::HtmlPage)?,
            "NotAnImage",
            "answered with a web page instead of an image",
            Help::Elsewhere,
        ),
        case(
            "truncated",
            // A little more each time, far from the end when the story is over.
            files.serve(&files.bootable("cut")?, "qcow2", Behaviour::Truncated(64 * 1024))?,
            "DownloadInterrupted",
            "broke off after",
            Help::Elsewhere,
        ),
        case(
            "stalled",
            raw("slow", Behaviour::Stalled(4096))?,
            "DownloadStalled",
            "sent next to nothing for 10 s",
            Help::Elsewhere,
        ),
    ])
}

/// Files made to reach other files or to exhaust whoever opens them.
pub(crate) fn hostile_files(files: &ImageFiles<'_>) -> Result<Vec<Case>> {
    let data = format!("data_file={},data_file_raw=on", files.folder.join("data.raw").display());
    let hostile = |name, file: PathBuf, sentence: &str| -> Result<Case> {
        let image = files.serve(&file, "qcow2", Behaviour::Good)?;
        Ok(case(name, image, "HostileImage", sentence, Help::Edit))
    };
    let stands_on = ["-u", "-b", "/etc/passwd", "-F", "raw"];
    let disguised = files.serve(&files.qcow2("disguised", &[])?, "raw", Behaviour::Good)?;
    let truth = "it is declared as raw but is in truth a qcow2 image; set spec.format to qcow2";
    Ok(vec![
        hostile("backing", files.qcow2("backing", &stands_on)?, "stands on a backing file")?,
        hostile("data-file", files.qcow2("data-file", &["-o", &data])?, "keeps its data in another file")?,
        hostile(
            "unknown-bits",
            files.patched("bits", 72, &[0x40])?,
            "needs features this node does not know",
        )?,
        hostile(
            "huge-table",
            files.patched("table", 36, &[0x7f; 4])?,
            "has an L1 table far larger than its virtual size needs",
        )?,
        hostile(
            "huge-refcounts",
            files.patched("refcounts", 56, &[0x7f; 4])?,
            "has a refcount table larger than QEMU accepts",
        )?,
        case("disguised", disguised, "WrongFormat", truth, Help::Edit),
    ])
}

/// An image that the node has already, declared as what it is not.
pub(crate) fn held_in_another_format(story: &Story<'_>) -> Result<Case> {
    let tiny = guest_image::find("tiny")?;
    let url = story.site.images().serve("bad/tiny.qcow2", &tiny.file, Behaviour::Good);
    let image = image(&json!({"http": {"url": url}}), &tiny.digest, "raw");
    let sentence = "is a qcow2 image, but spec.format says raw; correct spec.format";
    Ok(case("held", image, "WrongFormat", sentence, Help::Edit))
}

/// Places this node does not fetch from.
pub(crate) fn refused_places(files: &ImageFiles<'_>, allowed: &Path) -> Result<Vec<Case>> {
    let http = |url: &str, number| image(&json!({"http": {"url": url}}), &no_digest(number), "raw");
    let file = |path: &str, number| image(&json!({"file": {"path": path}}), &no_digest(number), "raw");
    symlink("/etc/passwd", allowed.join("link")).context("could not plant a link")?;
    holdfast_tests::files::write(&allowed.join("other"), "not what was promised")?;
    let redirect = Behaviour::Redirect(METADATA_SERVICE.to_owned());
    let redirected = files.serve(&files.plain("redirected")?, "raw", redirect)?;
    let why = "169.254.169.254 is the metadata service of a cloud, which this node does not fetch from";
    let refused =
        |name, image, sentence: &str| case(name, image, "SourceRefused", sentence.to_owned(), Help::Edit);
    Ok(vec![
        refused("link-local", http(METADATA_SERVICE, 2), &format!("spec.source is refused: {why}")),
        case(
            "redirected",
            redirected,
            "SourceRefused",
            format!("leads to a refused place: {why}"),
            Help::Elsewhere,
        ),
        refused("outside", file("/etc/passwd", 3), "lies in none of the folders of this node's"),
        refused("link", file(&format!("{ALLOWED}/link"), 4), "passes through a link"),
        refused("host", http("http://[::ffff:169.254.169.254]/", 6), "is the metadata service of a cloud"),
        // A tenant learns no digest of a file of the host.
        case(
            "other-file",
            file(&format!("{ALLOWED}/other"), 5),
            "DigestMismatch",
            format!("does not have the digest {}; correct", no_digest(5)),
            Help::Elsewhere,
        ),
    ])
}
