//! A story: a namespace of its own, an ordinary editor's identity, and on failure everything worth reading.
//!
//! Stories of one test binary share one site. Most run side by side; those that break what others use (the API server,
//! the controller, a host) are told alone.

use std::env;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use holdfast_api::{SSHKey, VirtualMachineImage, VirtualMachineNetwork};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, RwLockReadGuard, RwLockWriteGuard};

use crate::image_server::Behaviour;
use crate::kubeconfig::{self, Login, Server};
use crate::machine::{Blueprint, Machine};
use crate::progress::Progress;
use crate::site::{Layout, Site};
use crate::wait::{Look, wait_for};
use crate::{files, guest_image, install, site_folder};

/// The account a story acts under.
const EDITOR: &str = "editor";
/// `edit` is aggregated by a controller within a second or two of the installation.
const RIGHTS_LIMIT: Duration = Duration::from_secs(30);

/// What a story is given.
pub struct Story<'a> {
    /// The site, shared with other stories unless this one is told alone.
    pub site: &'a Site,
    /// The story's own namespace.
    pub namespace: String,
    /// An ordinary editor of that namespace.
    pub client: Client,
    /// The administrator, for what editors may not.
    pub admin: Client,
}

/// Tells a story beside others, on a site with two hosts named `a` and `b`.
pub async fn tell(name: &str, body: impl AsyncFnOnce(&Story<'_>) -> Result<()>) -> Result<()> {
    let site = shared_site().await?;
    let _beside: RwLockReadGuard<'_, ()> = site.gate.read().await;
    run(site, name, body).await
}

/// Tells a story that nothing else runs beside.
pub async fn tell_alone(name: &str, body: impl AsyncFnOnce(&Story<'_>) -> Result<()>) -> Result<()> {
    let site = shared_site().await?;
    let _alone: RwLockWriteGuard<'_, ()> = site.gate.write().await;
    run(site, name, body).await
}

impl Story<'_> {
    /// The kind's objects in the story's namespace, as its editor sees them.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The kubeconfig of the story's editor.
    pub fn editor(&self) -> PathBuf {
        editor_file(self.site, &self.namespace)
    }

    /// Creates an object from YAML or JSON text, as the editor.
    pub async fn create<K>(&self, text: &str) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + serde::Serialize,
    {
        let object: K = serde_saphyr::from_str(text).context("the story's YAML does not parse")?;
        let created = self.api::<K>().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("could not create the {}", K::kind(&())))
    }

    /// Serves a built guest image and creates the image object of the same name.
    pub async fn offer_image(&self, name: &str) -> Result<VirtualMachineImage> {
        let image = guest_image::find(name)?;
        let url = self.site.images().serve(
            &format!("{}/{name}.qcow2", self.namespace),
            &image.file,
            Behaviour::Good,
        );
        self.create(&format!(
            "{{metadata: {{name: {name}}}, spec: {{source: {{http: {{url: '{url}'}}}}, digest: '{}', format: qcow2}}}}",
            image.digest
        ))
        .await
    }

    /// Creates the NAT network `default`, with a subnet from the node's pool.
    pub async fn offer_network(&self) -> Result<VirtualMachineNetwork> {
        self.create("{metadata: {name: default}, spec: {nat: {}}}").await
    }

    /// Creates the key `site`, whose private half the harness logs in with.
    pub async fn offer_key(&self) -> Result<SSHKey> {
        let public = files::read(&self.site.ssh_key()?.with_extension("pub"))?;
        self.create(&format!("{{metadata: {{name: site}}, spec: {{publicKey: '{}'}}}}", public.trim())).await
    }

    /// Creates a virtual machine.
    pub async fn machine(&self, blueprint: &Blueprint) -> Result<Machine<'_>> {
        Machine::create(self, blueprint).await
    }

    /// Looks at an object again and again until the story is content with it.
    pub async fn wait<K, T>(
        &self,
        what: &str,
        name: &str,
        limit: Duration,
        mut judge: impl FnMut(&K) -> Look<T>,
    ) -> Result<T>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        wait_for(&format!("{name} to be {what}"), limit, async || {
            Ok(judge(&api.get(name).await.context("could not read it")?))
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn wait_gone<K>(&self, name: &str, limit: Duration) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        wait_for(&format!("{name} to be gone"), limit, async || {
            Ok(match api.get_opt(name).await.context("could not read it")? {
                None => Look::Done(()),
                Some(object) => Look::NotYet(format!("finalizers {:?}", object.meta().finalizers)),
            })
        })
        .await
    }
}

async fn shared_site() -> Result<&'static Site> {
    static SITE: OnceCell<Site> = OnceCell::const_new();
    static LOG: OnceLock<()> = OnceLock::new();
    LOG.get_or_init(|| drop(tracing_subscriber::fmt().with_test_writer().try_init()));
    let start = async {
        let own = env::current_exe().context("could not tell the test's name")?;
        let stem = own.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Cargo appends a hash to the name.
        let name = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name).to_owned();
        let folder = site_folder::fresh(&name)?;
        let progress = Progress::to(&folder.join("progress"));
        let hosts = vec!["a".to_owned(), "b".to_owned()];
        Site::start(&Layout { folder, hosts, kubeconfig: None }, &progress).await
    };
    SITE.get_or_try_init(|| start).await
}

async fn run(site: &Site, name: &str, body: impl AsyncFnOnce(&Story<'_>) -> Result<()>) -> Result<()> {
    let story = begin(site, name).await?;
    let outcome = AssertUnwindSafe(body(&story)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("the story's assertion failed, see above")));
    let namespaces: Api<Namespace> = Api::all(story.admin.clone());
    match outcome {
        Ok(()) => {
            let deleted = namespaces.delete(&story.namespace, &DeleteParams::default()).await;
            deleted.map(drop).context("could not delete the story's namespace")
        }
        Err(error) => Err(error.context(report(&story).await)),
    }
}

async fn begin<'a>(site: &'a Site, name: &str) -> Result<Story<'a>> {
    let admin = site.admin().await?;
    let namespace = name.to_owned();
    let mut space = Namespace::default();
    space.metadata.name = Some(namespace.clone());
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    namespaces.create(&PostParams::default(), &space).await.context("could not make a namespace")?;
    let file = editor(site, &admin, &namespace).await?;
    let client = kubeconfig::client(&file).await?;
    wait_rights(&client, &namespace).await?;
    Ok(Story { site, namespace, client, admin })
}

fn editor_file(site: &Site, namespace: &str) -> PathBuf {
    site.folder().join(format!("{namespace}-editor.kubeconfig"))
}

/// An account with the cluster role `edit` in one namespace, and its kubeconfig.
async fn editor(site: &Site, admin: &Client, namespace: &str) -> Result<PathBuf> {
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(EDITOR.to_owned());
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    accounts.create(&PostParams::default(), &account).await.context("could not make the editor's account")?;
    let mut binding = RoleBinding {
        role_ref: RoleRef { kind: "ClusterRole".to_owned(), name: "edit".to_owned(), ..RoleRef::default() },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: EDITOR.to_owned(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        }]),
        ..RoleBinding::default()
    };
    binding.metadata.name = Some(EDITOR.to_owned());
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), namespace);
    bindings.create(&PostParams::default(), &binding).await.context("could not bind the editor's role")?;
    let token = install::account_token(admin, namespace, EDITOR).await?;
    let file = editor_file(site, namespace);
    kubeconfig::write(&file, &Server::of(site.kubeconfig()).await?, &Login::Token(&token))?;
    Ok(file)
}

async fn wait_rights(client: &Client, namespace: &str) -> Result<()> {
    let machines: Api<holdfast_api::VirtualMachine> = Api::namespaced(client.clone(), namespace);
    wait_for("the editor's rights", RIGHTS_LIMIT, async || {
        machines
            .list(&kube::api::ListParams::default())
            .await
            .context("may not list virtual machines yet")?;
        Ok(Look::Done(()))
    })
    .await
}

/// Everything worth reading when a story fails.
async fn report(story: &Story<'_>) -> String {
    let kubeconfig = story.site.kubeconfig();
    let namespace = story.namespace.as_str();
    let ask =
        |words: &[&str]| install::kubectl(kubeconfig, words).unwrap_or_else(|error| format!("{error:#}\n"));
    let objects = ask(&["get", "holdfast", "--namespace", namespace, "--output=yaml"]);
    let nodes = ask(&["get", "hypervisornodes,nodeenrolments", "--output=yaml"]);
    let events = ask(&["get", "events", "--namespace", namespace, "--sort-by=.metadata.creationTimestamp"]);
    let logs = story.site.logs().await;
    format!("story {namespace}\n--- nodes\n{nodes}\n--- objects\n{objects}\n--- events\n{events}\n{logs}")
}
