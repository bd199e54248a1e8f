//! Puts Holdfast into a cluster as an administrator does: kinds, policies and rights from the repository's own files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_api::names::{CONTROLLER, SYSTEM_NAMESPACE};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::wait::{Look, wait_for};
use crate::{files, peer};

/// Name of the token Secret with the install credential, in the system namespace.
pub const INSTALL_CREDENTIAL: &str = "holdfast-install";
/// The API server looks at policies about once a second.
const EFFECTIVE_LIMIT: Duration = Duration::from_secs(60);
/// A site may run for months; a cluster that allows less gives less.
const TOKEN_SECONDS: i64 = 365 * 24 * 3600;
/// The name that the sentinel policy refuses.
const PROBE: &str = "holdfast-policies-effective";
/// Applied after all other policies: once it refuses, they do.
const SENTINEL: &str = include_str!("install/sentinel.yaml");

/// Installs kinds, policies and rights, and waits until all of them are in force. Repeating it changes nothing.
pub async fn install(kubeconfig: &Path, client: &Client, scratch: &Path) -> Result<()> {
    let root = peer::repository();
    apply(kubeconfig, &yaml_files(&root.join("api/crds"))?)?;
    kubectl(
        kubeconfig,
        &["wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "!no-such-label"],
    )?;
    // What kubectl remembers of the cluster is older than the kinds.
    files::remove_folder(&kubectl_cache(kubeconfig))?;
    apply(kubeconfig, &yaml_files(&root.join("policies"))?)?;
    let sentinel = scratch.join("sentinel.yaml");
    files::write(&sentinel, SENTINEL)?;
    apply(kubeconfig, &[sentinel])?;
    wait_policies(client).await
}

/// Removes what [`install`] put there; objects of our kinds go with their kinds.
pub fn uninstall(kubeconfig: &Path, scratch: &Path) -> Result<()> {
    let root = peer::repository();
    let sentinel = scratch.join("sentinel.yaml");
    files::write(&sentinel, SENTINEL)?;
    let mut files = yaml_files(&root.join("policies"))?;
    files.push(sentinel);
    files.extend(yaml_files(&root.join("api/crds"))?);
    let files = files.iter().map(|file: &PathBuf| format!("--filename={}", file.display()));
    let words: Vec<String> = ["delete", "--ignore-not-found", "--wait=true", "--timeout=120s"]
        .map(str::to_owned)
        .into_iter()
        .chain(files)
        .collect();
    kubectl(kubeconfig, &words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
}

/// A token for the controller's own account.
pub async fn controller_token(client: &Client) -> Result<String> {
    account_token(client, SYSTEM_NAMESPACE, CONTROLLER).await
}

/// A token for a `ServiceAccount`, as the cluster gives it to whoever may ask.
pub async fn account_token(client: &Client, namespace: &str, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("could not get a token for {namespace}/{account}"))?;
    answer.status.map(|status| status.token).with_context(|| format!("no token for {namespace}/{account}"))
}

/// The install credential: the token that the cluster has put into its Secret.
pub async fn install_credential(client: &Client) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    wait_for("the install credential", EFFECTIVE_LIMIT, async || {
        let secret =
            secrets.get(INSTALL_CREDENTIAL).await.context("could not read the install credential")?;
        let token = secret.data.and_then(|mut data| data.remove("token"));
        Ok(match token.map(|token| String::from_utf8(token.0)) {
            Some(Ok(token)) => Look::Done(token),
            _ => Look::NotYet("its Secret holds no token yet".to_owned()),
        })
    })
    .await
}

/// Applies files, server-side.
pub fn apply(kubeconfig: &Path, files: &[PathBuf]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut words = vec!["apply".to_owned(), "--server-side".to_owned(), "--force-conflicts".to_owned()];
    words.push("--field-manager=holdfast-install".to_owned());
    words.extend(files.iter().map(|file| format!("--filename={}", file.display())));
    kubectl(kubeconfig, &words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
}

/// Runs `kubectl`, which must succeed; returns what it printed.
pub fn kubectl(kubeconfig: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new(peer::packaged("kubectl", "kubernetes-client")?);
    command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(kubectl_cache(kubeconfig)).args(words);
    let output = command.output().context("could not run kubectl")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("kubectl {} failed: {}", words.first().unwrap_or(&""), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A cache of the site's own: the user's holds what other clusters at the same address said.
fn kubectl_cache(kubeconfig: &Path) -> PathBuf {
    kubeconfig.with_extension("kubectl-cache")
}

/// All YAML files below a folder, in the order of their names.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("could not list {}", folder.display()))?.path();
        if path.is_dir() {
            found.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn wait_policies(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut probe = ConfigMap::default();
    probe.metadata.name = Some(PROBE.to_owned());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    wait_for("the admission policies", EFFECTIVE_LIMIT, async || {
        Ok(match maps.create(&dry_run, &probe).await {
            Ok(_) => Look::NotYet("they refuse nothing yet".to_owned()),
            Err(kube::Error::Api(status)) if status.message.contains(PROBE) && status.code == 422 => {
                Look::Done(())
            }
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
    .await
}
