//! The cluster of a site: its own control plane, or one the user names.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Layout;
use crate::control_plane::ControlPlane;
use crate::progress::Progress;

/// Where the site's objects live.
pub enum Cluster {
    /// Started and ended by us.
    Own(Box<ControlPlane>),
    /// Somebody else's, given by its administrator's kubeconfig.
    Given(PathBuf),
}

impl Cluster {
    pub(super) async fn start(layout: &Layout, progress: &Progress) -> Result<Self> {
        if let Some(given) = &layout.kubeconfig {
            progress.say(&format!("using the cluster of {}", given.display()));
            return Ok(Self::Given(given.clone()));
        }
        let plane = ControlPlane::start(&layout.folder.join("plane")).await?;
        progress.say(&format!("the API server is ready on 127.0.0.1:{}", plane.port()));
        Ok(Self::Own(Box::new(plane)))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(plane) => plane.kubeconfig(),
            Self::Given(file) => file.clone(),
        }
    }

    /// The control plane, for stories that stop it.
    pub fn own(&mut self) -> Result<&mut ControlPlane> {
        match self {
            Self::Own(plane) => Ok(plane),
            Self::Given(file) => bail!("the cluster of {} is not ours to stop", file.display()),
        }
    }

    /// The end of its logs, where they are ours.
    pub fn logs(&self) -> String {
        match self {
            Self::Own(plane) => plane.logs(),
            Self::Given(_) => String::new(),
        }
    }
}
