//! What the demo puts into the namespace `default` beforehand: images that lie on this machine, and a key.

use anyhow::{Context, Result};
use holdfast_api::{SSHKey, VirtualMachineImage};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::image_server::Behaviour;
use crate::progress::Progress;
use crate::site::Site;
use crate::{files, guest_image};

/// The names under which built images are offered.
const IMAGES: [(&str, &str); 2] = [("debian", "debian-13"), ("tiny", "tiny")];
/// The name of the SSH key whose private half `holdfast-site ssh` uses.
const KEY: &str = "demo";

/// Serves the built images, and creates an object for each and for the site's key.
pub(super) async fn offer(site: &Site, progress: &Progress) -> Result<()> {
    let client = site.admin().await?;
    for (built, name) in IMAGES {
        let image = guest_image::find(built)?;
        let url = site.images().serve(&format!("{name}.qcow2"), &image.file, Behaviour::Good);
        offer_image(&client, name, &url, &image.digest).await?;
        progress.say(&format!("image {name} is offered in namespace default"));
    }
    offer_key(&client, site).await
}

async fn offer_image(client: &Client, name: &str, url: &str, digest: &str) -> Result<()> {
    let images: Api<VirtualMachineImage> = Api::namespaced(client.clone(), "default");
    let known = images.get_opt(name).await.context("could not read the image")?;
    if known.is_some_and(|known| known.spec.digest != digest) {
        // An image's spec never changes; virtual machines made from the old one keep it by digest.
        images.delete(name, &DeleteParams::default()).await.context("could not replace the image")?;
    }
    let spec = json!({"source": {"http": {"url": url}}, "digest": digest, "format": "qcow2"});
    apply(&images, "VirtualMachineImage", name, &spec).await
}

async fn offer_key(client: &Client, site: &Site) -> Result<()> {
    let public = files::read(&site.ssh_key()?.with_extension("pub"))?;
    let keys: Api<SSHKey> = Api::namespaced(client.clone(), "default");
    apply(&keys, "SSHKey", KEY, &json!({"publicKey": public.trim()})).await
}

async fn apply<K>(api: &Api<K>, kind: &str, name: &str, spec: &Value) -> Result<()>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let parameters = PatchParams::apply("holdfast-site").force();
    let outcome = api.patch(name, &parameters, &Patch::Apply(&object)).await;
    outcome.map(drop).with_context(|| format!("could not apply {kind} {name}"))
}
