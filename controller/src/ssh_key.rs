//! SSH keys: their fingerprint, and whether they are keys at all. The schema knows their outer form only.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use holdfast_api::SSHKey;
use holdfast_api::condition::{self, Finding, READY, STALLED};
use holdfast_api::ssh_key::{self, SSHKeyStatus};

use crate::world::World;
use crate::write::{Kind, Meta, Status, Target, Verb, Write, body, stand};

/// Writes that bring every key's status up to date.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    world.keys.iter().filter_map(|key| update(world, key)).collect()
}

fn update(world: &World, key: &SSHKey) -> Option<Write> {
    let generation = key.metadata.generation;
    let found = key.status.clone().unwrap_or_default();
    let (fingerprint, findings) = match fingerprint(&key.spec.public_key) {
        Ok(fingerprint) => (fingerprint, vec![Finding::new(READY, true, "Accepted", "")]),
        Err(sentence) => (String::new(), refused(&sentence)),
    };
    let conditions = condition::conditions(&found.conditions, &findings, generation, &world.now);
    let settled = found.observed_generation == generation
        && found.fingerprint == fingerprint
        && found.conditions.len() == conditions.len()
        && stand(&found.conditions, &conditions);
    if settled || key.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = SSHKeyStatus { fingerprint, observed_generation: generation, conditions };
    let body = body::<SSHKey>(&Meta::exactly(key), Status { status });
    Some(Write::new(Target::of(Kind::SshKey, key), Verb::ApplyStatus(body)))
}

fn refused(sentence: &str) -> Vec<Finding> {
    vec![
        Finding::new(READY, false, "InvalidKey", sentence),
        Finding::new(STALLED, true, "InvalidKey", sentence),
    ]
}

/// The fingerprint as `ssh-keygen -l` prints it.
fn fingerprint(line: &str) -> Result<String, String> {
    let blob = ssh_key::blob(line)?;
    Ok(format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &blob))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn the_fingerprint_is_the_one_ssh_keygen_prints() {
        // GitHub publishes this pair of key and fingerprint.
        assert_eq!(fingerprint(KEY).unwrap(), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(fingerprint(&format!("{KEY} a comment")), fingerprint(KEY));
    }
}
