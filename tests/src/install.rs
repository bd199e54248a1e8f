//! Puts Holdfast into a cluster as an administrator does: kinds, policies and rights from the repository's own files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_api::names::{CONTROLLER, SYSTEM_NAMESPACE};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::kubectl::Kubectl;
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
const APPLY: [&str; 4] = ["apply", "--server-side", "--force-conflicts", "--field-manager=holdfast-install"];

/// Installs kinds, policies and rights, and waits until all of them are in force. Repeating it changes nothing. Files it
/// needs meanwhile lie in `scratch`.
pub async fn install(kubeconfig: &Path, client: &Client, scratch: &Path) -> Result<()> {
    let root = peer::repository();
    let kubectl = Kubectl::new(kubeconfig, scratch);
    let kinds = yaml_files(&root.join("api/crds"))?;
    kubectl.run_on(&APPLY, &kinds)?;
    kubectl.run_on(&["wait", "--for=condition=Established", "--timeout=60s"], &kinds)?;
    // What kubectl remembers of the cluster is older than the kinds.
    kubectl.forget()?;
    kubectl.run_on(&APPLY, &yaml_files(&root.join("policies"))?)?;
    kubectl.run_on(&APPLY, &[sentinel(scratch)?])?;
    wait_policies(client).await
}

/// Removes what [`install`] put there; objects of our kinds go with their kinds.
pub fn uninstall(kubeconfig: &Path, scratch: &Path) -> Result<()> {
    let root = peer::repository();
    let mut files = yaml_files(&root.join("policies"))?;
    files.push(sentinel(scratch)?);
    files.extend(yaml_files(&root.join("api/crds"))?);
    let words = ["delete", "--ignore-not-found", "--wait=true", "--timeout=120s"];
    Kubectl::new(kubeconfig, scratch).run_on(&words, &files)
}

fn sentinel(scratch: &Path) -> Result<PathBuf> {
    let file = scratch.join("sentinel.yaml");
    files::write(&file, SENTINEL)?;
    Ok(file)
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

/// Runs `kubectl` in a cluster of ours, which must succeed; returns what it printed. It remembers beside the kubeconfig.
pub fn kubectl(kubeconfig: &Path, words: &[&str]) -> Result<String> {
    Kubectl::new(kubeconfig, kubeconfig.parent().unwrap_or(Path::new("."))).run(words)
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
