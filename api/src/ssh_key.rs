//! `SSHKey` (hkey): a public key that virtual machines of its namespace may name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

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

/// What the controller found out about the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SSHKeyStatus {
    /// SHA-256 fingerprint as ssh-keygen -l prints it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Generation of the spec that was judged last.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready is True when the key can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
