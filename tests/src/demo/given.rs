//! A cluster that is somebody's: entered only where Holdfast is not yet, marked before anything is installed, and left
//! as it was found.

use std::path::Path;

use anyhow::{Context, Result, bail};
use holdfast_api::names::NODE_LABEL;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::record::Record;
use crate::kubectl::Kubectl;
use crate::{install, kubeconfig};

/// A `ConfigMap` in the namespace `default`, where the demo's objects are too.
const MARK: &str = "holdfast-site";
const GROUP: &str = "holdfast.dev";
const WAIT: &str = "--timeout=120s";

/// The cluster with the record of the site that uses it.
pub(super) struct Given<'a> {
    kubeconfig: &'a Path,
    folder: &'a Path,
    record: &'a Record,
    client: Client,
}

/// Whose the cluster is, as far as demos go.
enum Whose {
    Ours,
    /// Of the site in this folder.
    AnotherSites(String),
    Nobodys,
}

impl<'a> Given<'a> {
    /// The cluster the record names, if it names one.
    pub(super) async fn of(folder: &'a Path, record: &'a Record) -> Result<Option<Self>> {
        let Some(kubeconfig) = record.shape.kubeconfig.as_deref() else { return Ok(None) };
        let client = kubeconfig::client(kubeconfig).await?;
        Ok(Some(Self { kubeconfig, folder, record, client }))
    }

    /// Fails unless the site may be installed: taking it down takes its kinds along, and with them every virtual machine
    /// of a cluster that had them before.
    pub(super) async fn admit(&self) -> Result<()> {
        let given = self.kubeconfig.display();
        match self.whose().await? {
            Whose::Ours => Ok(()),
            Whose::AnotherSites(folder) => {
                bail!("the cluster of {given} is used by the site in {folder}: take that one down first")
            }
            Whose::Nobodys if self.kinds().await?.is_empty() => Ok(()),
            Whose::Nobodys => bail!(
                "the cluster of {given} has Holdfast already: give one that has not, or add a host to it as \
                 docs/two-hosts-and-k3s.md says"
            ),
        }
    }

    /// Marks the cluster as this site's; repeating it changes nothing.
    pub(super) async fn mark(&self) -> Result<()> {
        if let Whose::Ours = self.whose().await? {
            return Ok(());
        }
        let data = json!({"site": self.record.id, "folder": self.folder});
        let mark = json!({"metadata": {"name": MARK}, "data": data});
        let mark = serde_json::from_value(mark).context("no ConfigMap")?;
        let made = self.marks().create(&PostParams::default(), &mark).await;
        made.map(drop).with_context(|| format!("could not mark the cluster of {}", self.kubeconfig.display()))
    }

    /// Whether the site put anything there.
    pub(super) async fn is_ours(&self) -> Result<bool> {
        Ok(matches!(self.whose().await?, Whose::Ours))
    }

    /// Whether objects are there that only a running site takes away in order.
    pub(super) async fn needs_site(&self) -> Result<bool> {
        let kinds = self.kinds().await?;
        if kinds.is_empty() {
            return Ok(false);
        }
        let found = self.kubectl().run(&["get", &kinds.join(","), "--all-namespaces", "--output=name"])?;
        Ok(!found.trim().is_empty())
    }

    /// Takes away all the site put there: virtual machines first, while somebody can take them down, the mark last.
    pub(super) async fn leave(&self) -> Result<()> {
        let (of_nodes, of_namespaces): (Vec<_>, Vec<_>) =
            self.kinds().await?.into_iter().partition(|kind| kind.contains("node"));
        if !of_namespaces.is_empty() {
            let kinds = of_namespaces.join(",");
            self.kubectl().run(&["delete", &kinds, "--all", "--all-namespaces", WAIT])?;
        }
        if !of_nodes.is_empty() {
            self.kubectl().run(&["delete", &of_nodes.join(","), "--all", WAIT])?;
        }
        // Made by the controller for its nodes; the cluster would keep them for an hour.
        let ours = format!("--selector={NODE_LABEL}");
        self.kubectl().run(&["delete", "certificatesigningrequests", &ours, WAIT])?;
        install::uninstall(self.kubeconfig, self.folder)?;
        let gone = self.marks().delete(MARK, &DeleteParams::default()).await;
        gone.map(drop).context("could not take the mark of the site away")
    }

    async fn whose(&self) -> Result<Whose> {
        let found = self.marks().get_opt(MARK).await;
        let found = found
            .with_context(|| format!("could not look into the cluster of {}", self.kubeconfig.display()))?;
        let Some(data) = found.map(|mark| mark.data.unwrap_or_default()) else { return Ok(Whose::Nobodys) };
        Ok(match data.get("site") {
            Some(id) if *id == self.record.id => Whose::Ours,
            _ => Whose::AnotherSites(data.get("folder").cloned().unwrap_or_default()),
        })
    }

    /// Our kinds that the cluster has, in the plural.
    async fn kinds(&self) -> Result<Vec<String>> {
        let all: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let all = all.list_metadata(&ListParams::default()).await.context("could not list its kinds")?;
        let ours = all.iter().map(ResourceExt::name_any);
        Ok(ours.filter_map(|name| Some(name.strip_suffix(GROUP)?.strip_suffix('.')?.to_owned())).collect())
    }

    fn marks(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig, self.folder)
    }
}
