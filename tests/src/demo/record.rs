//! What makes a folder a demo's: a record in it of what the site is, written before anything else is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Folder;
use crate::files;

const FILE: &str = "holdfast-site.json";

/// What a site is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Shape {
    /// How many hosts.
    #[arg(long, default_value_t = 1)]
    pub hosts: usize,
    /// Use the cluster of this kubeconfig instead of a control plane of our own.
    #[arg(long, env = "HOLDFAST_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

impl Shape {
    /// The same, whatever folder it is read from later.
    fn absolute(mut self) -> Result<Self> {
        if let Some(given) = &self.kubeconfig {
            let path = given.canonicalize();
            self.kubeconfig = Some(path.with_context(|| format!("could not find {}", given.display()))?);
        }
        Ok(self)
    }

    fn says(&self) -> String {
        let hosts = if self.hosts == 1 { "1 host".to_owned() } else { format!("{} hosts", self.hosts) };
        match &self.kubeconfig {
            Some(given) => format!("{hosts} and the cluster of {}", given.display()),
            None => format!("{hosts} and a control plane of its own"),
        }
    }
}

/// The record of one site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Also stands in a given cluster, so that only what this site put there is ever taken away.
    pub(super) id: String,
    pub(super) shape: Shape,
}

impl Record {
    /// The record of a site of this shape in `folder`: the one that is there, or one yet to be kept.
    pub(super) fn of(folder: &Folder, wanted: Shape) -> Result<Self> {
        let wanted = wanted.absolute()?;
        let Some(known) = Self::find(folder.path())? else {
            must_be_empty(folder.path())?;
            return Ok(Self { id: uuid::Uuid::new_v4().to_string(), shape: wanted });
        };
        if known.shape != wanted {
            bail!(
                "the site in {} has {}, and {} were asked for: take it down first with make demo-down, or name another \
                 folder with HOLDFAST_SITE_DIR",
                folder.path().display(),
                known.shape.says(),
                wanted.says()
            );
        }
        Ok(known)
    }

    /// The record in a folder, which is a demo's if it has one.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let record = serde_json::from_str(&files::read(&file)?);
        record.map(Some).with_context(|| format!("{} is no record of a site", file.display()))
    }

    /// Keeps the record: from here on the folder is the demo's.
    pub(super) fn keep(&self, folder: &Path) -> Result<()> {
        files::create_folder(folder)?;
        let text = serde_json::to_string_pretty(self).context("could not write JSON")?;
        // Whole or not at all: half a record would make the folder nobody's.
        let fresh = folder.join(format!("{FILE}.new"));
        files::write(&fresh, text)?;
        std::fs::rename(&fresh, folder.join(FILE))
            .with_context(|| format!("could not keep the record in {}", folder.display()))
    }
}

fn must_be_empty(folder: &Path) -> Result<()> {
    let mut entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("could not list {}", folder.display())),
    };
    if entries.next().is_some() {
        bail!(
            "{} holds files and is no demo's folder: name an empty or a new one with --dir or HOLDFAST_SITE_DIR",
            folder.display()
        );
    }
    Ok(())
}

/// Removes a demo's folder, its record last: a removal that was broken off can be repeated.
pub(super) fn remove(folder: &Path) -> Result<()> {
    files::empty_folder_but(folder, FILE)?;
    files::remove_folder(folder)
}
