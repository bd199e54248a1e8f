//! Makes image files of a story and puts them on the image server.

use std::fmt::Write as _;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::story::Story;
use holdfast_tests::{files, guest_image, peer};
use serde_json::{Value, json};

/// Makes image files of a story and puts them on the image server.
pub(crate) struct ImageFiles<'a> {
    story: &'a Story<'a>,
    /// Where the files lie.
    pub(crate) folder: PathBuf,
}

impl<'a> ImageFiles<'a> {
    pub(crate) fn open(story: &'a Story<'a>) -> Result<Self> {
        let folder = story.site.folder().join("image-files").join(&story.namespace);
        files::create_folder(&folder)?;
        Ok(Self { story, folder })
    }

    /// A file like no other: the cache knows images by their bytes.
    pub(crate) fn plain(&self, name: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        files::write(&file, format!("{name} ").repeat(32 * 1024))?;
        Ok(file)
    }

    /// A guest's image like no other: what follows the last cluster is nobody's.
    pub(crate) fn bootable(&self, name: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        let mut bytes = fs::read(guest_image::find("tiny")?.file).context("could not read the tiny image")?;
        bytes.extend(name.as_bytes());
        files::write(&file, bytes)?;
        Ok(file)
    }

    pub(crate) fn qcow2(&self, name: &str, options: &[&str]) -> Result<PathBuf> {
        let file = self.folder.join(name);
        let mut create = Command::new(peer::packaged("qemu-img", "qemu-utils")?);
        create.args(["create", "-q", "-f", "qcow2"]).args(options).arg(&file).arg("32M");
        let made = create.stdin(Stdio::null()).status().context("could not run qemu-img")?;
        ensure!(made.success(), "qemu-img made no {name}");
        Ok(file)
    }

    /// A sound qcow2 file with other bytes at one place of its header.
    pub(crate) fn patched(&self, name: &str, at: u64, bytes: &[u8]) -> Result<PathBuf> {
        let file = self.qcow2(name, &[])?;
        let mut opened =
            fs::File::options().write(true).open(&file).context("could not open a qcow2 file")?;
        opened.seek(SeekFrom::Start(at)).context("could not seek")?;
        opened.write_all(bytes).context("could not patch a qcow2 file")?;
        Ok(file)
    }

    pub(crate) fn address(&self, file: &Path, behaviour: Behaviour) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.story.site.images().serve(&format!("{}/{name}", self.story.namespace), file, behaviour)
    }

    /// The file's image, served in this way and declared with its true digest.
    pub(crate) fn serve(&self, file: &Path, format: &str, behaviour: Behaviour) -> Result<Value> {
        let url = self.address(file, behaviour);
        Ok(image(&json!({"http": {"url": url}}), &digest_of(file)?, format))
    }
}

pub(crate) fn image(source: &Value, digest: &str, format: &str) -> Value {
    json!({"source": source, "digest": digest, "format": format})
}

pub(crate) fn digest_of(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, &bytes).as_ref() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// A digest nothing has.
pub(crate) fn no_digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}
