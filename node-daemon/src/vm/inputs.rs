//! What goes into a seed besides the spec: public keys and the bytes of Secrets.

use holdfast_api::reference::SecretKeyRef;
use holdfast_api::ssh_key;
use holdfast_api::virtual_machine::SeedStatus;

use super::desired::{Desired, Interface};
use super::observed::{Inputs, Obstacle};
use super::record::Record;
use crate::objects::{KeptSecret, Lookup, Objects};
use crate::secret::Secret;
use crate::seed::{MetaData, Network, Nic, Seed};

/// Bytes for the seed. No `Debug`: they belong there and nowhere else.
#[derive(Default)]
pub(crate) struct Material {
    /// User-data from a Secret.
    pub(crate) user_data: Option<Secret<Vec<u8>>>,
    /// Network configuration from a Secret.
    pub(crate) network_data: Option<Secret<Vec<u8>>>,
}

/// cloud-init reads user-data up to this size over most data sources; a Secret cannot hold more than 1 MiB anyway.
const MAX_SECRET_DATA: usize = 512 * 1024;

/// All of it, or what is missing.
pub(crate) async fn gather(objects: &Objects, desired: &Desired) -> (Inputs, Material) {
    match try_gather(objects, desired).await {
        Ok((ssh_keys, secrets, material)) => (Inputs::Ready { ssh_keys, secrets }, material),
        Err(obstacle) => (Inputs::Unavailable(obstacle), Material::default()),
    }
}

async fn try_gather(
    objects: &Objects,
    desired: &Desired,
) -> Result<(Vec<String>, SeedStatus, Material), Obstacle> {
    let namespace = &desired.identity().namespace;
    let ssh_keys = ssh_keys(objects, desired)?;
    let cloud_init = desired.cloud_init();
    let (mut secrets, mut material) = (SeedStatus::default(), Material::default());
    if let Some(reference) = &cloud_init.user_data_secret {
        let (secret, bytes) = read(objects, namespace, reference, "userDataSecret").await?;
        (secrets.secret_uid, secrets.secret_resource_version) = (secret.uid, secret.resource_version);
        material.user_data = Some(bytes);
    }
    if let Some(reference) = &cloud_init.network_data_secret {
        let (secret, bytes) = read(objects, namespace, reference, "networkDataSecret").await?;
        (secrets.network_secret_uid, secrets.network_secret_resource_version) =
            (secret.uid, secret.resource_version);
        material.network_data = Some(bytes);
    }
    Ok((ssh_keys, secrets, material))
}

/// The public keys the spec names, in its order.
pub(crate) fn ssh_keys(objects: &Objects, desired: &Desired) -> Result<Vec<String>, Obstacle> {
    let namespace = &desired.identity().namespace;
    desired.cloud_init().ssh_keys.iter().map(|key| ssh_key(objects, namespace, &key.name)).collect()
}

fn ssh_key(objects: &Objects, namespace: &str, name: &str) -> Result<String, Obstacle> {
    match objects.ssh_key(namespace, name) {
        Lookup::Found(key) => one_line(name, &key.spec.public_key),
        Lookup::Missing => Err(Obstacle::later(
            "SSHKeyNotFound",
            format!(
                "there is no SSHKey {name} in namespace {namespace}: create it, the node then continues by itself"
            ),
        )),
        Lookup::Unknown => Err(Obstacle::soon(
            "SSHKeyUnknown",
            format!(
                "SSHKey {name} could not be read yet, because the API does not answer: the node continues by itself"
            ),
        )),
    }
}

/// Judged here as well as by the controller, whose verdict may be missing or older than the key. A second line would be
/// a second key that nobody named.
fn one_line(name: &str, key: &str) -> Result<String, Obstacle> {
    let key = key.trim();
    match ssh_key::blob(key) {
        Ok(_) => Ok(key.to_owned()),
        Err(why) => Err(Obstacle::later("SSHKeyInvalid", format!("SSHKey {name}: {why}"))),
    }
}

async fn read(
    objects: &Objects,
    namespace: &str,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<(KeptSecret, Secret<Vec<u8>>), Obstacle> {
    let SecretKeyRef { name, key } = reference;
    let mut secret = match objects.secret(namespace, name).await {
        Ok(Lookup::Found(secret)) => secret,
        Ok(Lookup::Missing | Lookup::Unknown) => {
            return Err(Obstacle::later(
                "SecretNotFound",
                format!(
                    "spec.cloudInit.{field}: there is no Secret {name} in namespace {namespace}: create it, the node then continues by itself"
                ),
            ));
        }
        Err(error) => {
            return Err(Obstacle {
                reason: "SecretUnreadable",
                message: super::sentence(&error),
                retry: error.retry(),
            });
        }
    };
    let Some(bytes) = secret.data.remove(key) else {
        return Err(Obstacle::later(
            "SecretKeyNotFound",
            format!(
                "spec.cloudInit.{field}: Secret {name} has no key {key}: add it, the node then continues by itself"
            ),
        ));
    };
    if bytes.expose_to_seed().len() > MAX_SECRET_DATA {
        return Err(Obstacle::later(
            "SecretTooLarge",
            format!(
                "spec.cloudInit.{field}: key {key} of Secret {name} is larger than 512 KiB: let the guest fetch what is large"
            ),
        ));
    }
    Ok((secret, bytes))
}

/// The seed a record describes, with the bytes of Secrets filled in.
pub(crate) fn seed(record: &Record, interfaces: &[Interface], material: &Material) -> Seed {
    let cloud_init = &record.seed.cloud_init;
    let plain = |text: &str| (!text.is_empty()).then(|| Secret::new(text.as_bytes().to_vec()));
    let nic = |interface: &Interface| Nic { name: interface.name.clone(), mac: interface.mac.to_string() };
    let network_data = material.network_data.clone().or_else(|| plain(&cloud_init.network_data));
    Seed {
        meta_data: MetaData {
            instance_id: record.seed.instance_id.clone(),
            hostname: record.seed.hostname.clone(),
            public_keys: record.seed.ssh_keys.clone(),
        },
        user_data: material.user_data.clone().or_else(|| plain(&cloud_init.user_data)),
        network: network_data
            .map_or_else(|| Network::Dhcp(interfaces.iter().map(nic).collect()), Network::Given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_that_the_controller_calls_no_key_goes_into_a_seed() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        assert_eq!(one_line("alice", &format!("{key} alice\n")).unwrap(), format!("{key} alice"));
        for wrong in [key.replace("AAAAC3", "AAAAD3"), format!("{key}\n{key}"), "ssh-ed25519 AAAA".into()] {
            let obstacle = one_line("alice", &wrong).unwrap_err();
            assert_eq!(obstacle.reason, "SSHKeyInvalid");
            assert!(obstacle.message.starts_with("SSHKey alice: spec.publicKey"), "{}", obstacle.message);
        }
    }
}
