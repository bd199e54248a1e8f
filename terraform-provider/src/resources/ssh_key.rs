//! `holdfast_ssh_key`: a public key that virtual machines of its namespace may name.

use holdfast_api::SSHKey;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{ApiResource, DynamicObject};

use super::effect::Effect;
use super::kind::Kind;
use super::timeouts::{SHORT, Times};
use super::unread::unread;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// The kind.
pub(crate) struct SshKey;

impl Kind for SshKey {
    const NAME: &'static str = "ssh_key";
    const TIMES: Times = SHORT;

    fn crd() -> CustomResourceDefinition {
        SSHKey::crd()
    }

    fn resource() -> ApiResource {
        ApiResource::erase::<SSHKey>(&())
    }

    fn unread(object: &DynamicObject) -> Diagnostics {
        unread::<SSHKey>(object)
    }

    fn about() -> &'static str {
        "An SSH public key. Virtual machines of the same namespace name it in `cloud_init.ssh_keys`."
    }

    fn effects() -> &'static [(&'static str, Effect)] {
        &[("`public_key` (running guests keep the old one until a reseed)", Effect::Live)]
    }

    fn lifted() -> &'static [(&'static str, &'static str)] {
        &[("fingerprint", "SHA-256 fingerprint as `ssh-keygen -l` prints it.")]
    }

    fn lift(_: &str, status: &Value) -> Value {
        status.attribute("fingerprint").clone()
    }

    fn validate(config: &Value, diagnostics: &mut Diagnostics) {
        let Value::String(key) = config.attribute("public_key") else { return };
        if key.contains("PRIVATE KEY") {
            let detail = "public_key holds a private key, which must stay where it is. Give the content of the .pub file.";
            diagnostics.error(Path::of("public_key"), "Private key where a public one belongs", detail);
        } else if key.trim_end() != key || key.contains('\n') {
            let detail = "public_key must be one line without an end of line. Write trimspace(file(\"~/.ssh/id_ed25519.pub\")).";
            diagnostics.error(Path::of("public_key"), "Value of the wrong form", detail);
        }
    }
}
