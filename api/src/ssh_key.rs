//! `SSHKey` (hkey): a public key that virtual machines of its namespace may name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::bounds::WORD;

/// The key itself.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "SSHKey",
    plural = "sshkeys",
    shortname = "hkey",
    category = "all",
    category = "holdfast",
    namespaced,
    status = "SSHKeyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "An SSH public key. Virtual machines of the same namespace name it in spec.cloudInit.sshKeys; cloud-init then puts it into the guest.",
    printcolumn(name = "Fingerprint", type_ = "string", json_path = ".status.fingerprint"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SSHKeySpec {
    /// The public key in OpenSSH form, one line: type, base64 and an optional comment. A change reaches a guest with its next reseed.
    #[schemars(length(max = 16384))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh.com|sk-ecdsa-sha2-nistp256@openssh.com) [A-Za-z0-9+/]{40,}={0,3}( [^\\x00-\\x1f\\x7f]*)?$')"
    ).message("publicKey must be one line in OpenSSH form, such as the content of ~/.ssh/id_ed25519.pub; a private key does not belong here"))]
    pub public_key: String,
}

/// The longest line that counts as a key, in bytes: an RSA key of 16384 bits has 2800, and a node remembers 32 of them.
pub const MAX_LINE: usize = 8 * 1024;

/// The key that a line in OpenSSH form holds, as bytes; they begin with the type that stands before them (RFC 4253
/// section 6.6). Controller and nodes judge by this, so that what one calls no key no other puts into a guest.
///
/// # Errors
/// A sentence for the writer of `spec.publicKey`.
pub fn blob(line: &str) -> Result<Vec<u8>, String> {
    if line.len() > MAX_LINE {
        return Err(sentence("it has more than 8 KiB"));
    }
    if line.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(sentence("it contains control characters"));
    }
    let mut words = line.split(' ');
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|known| kind.starts_with(known)) {
        return Err(sentence("its first word is no type of key"));
    }
    let blob = STANDARD.decode(blob).map_err(|_| sentence("its second word is not base64"))?;
    let named = blob.get(..4).and_then(|length| <[u8; 4]>::try_from(length).ok());
    let length = named.and_then(|length| usize::try_from(u32::from_be_bytes(length)).ok()).unwrap_or(0);
    let name = length.checked_add(4).and_then(|end| blob.get(4..end));
    if name != Some(kind.as_bytes()) || blob.len() <= 4 + length {
        return Err(sentence("its second word is not a key of the type that its first word names"));
    }
    Ok(blob)
}

fn sentence(why: &str) -> String {
    format!(
        "spec.publicKey is not an SSH public key: {why}; paste the one line of a .pub file, such as ~/.ssh/id_ed25519.pub"
    )
}

/// What the controller found out about the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SSHKeyStatus {
    /// SHA-256 fingerprint as ssh-keygen -l prints it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = WORD))]
    pub fingerprint: String,
    /// Generation of the spec that was judged last.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready is True when the key can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn a_comment_is_no_part_of_the_key() {
        assert!(blob(KEY).is_ok());
        assert_eq!(blob(&format!("{KEY} b\u{f6}b \"at\" home")), blob(KEY));
    }

    #[test]
    fn what_is_no_key_is_refused_in_a_sentence() {
        let rsa = KEY.replace("ssh-ed25519", "ssh-rsa");
        let long = format!("{KEY} {}", "x".repeat(MAX_LINE));
        let (two, mark) = (format!("{KEY}\n{KEY}"), format!("{KEY} \u{ffff}"));
        let short = [
            "",
            "command=x AAAAAWNvbW1hbmQ=",
            "ssh-rsa",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 %%%%",
            "ssh-ed25519 /////w==",
        ];
        for line in short.into_iter().chain([rsa.as_str(), &long, &two, &mark]) {
            let why = blob(line).unwrap_err();
            assert!(why.starts_with("spec.publicKey is not an SSH public key"), "{line}: {why}");
        }
    }
}
