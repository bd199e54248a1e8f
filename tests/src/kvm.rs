//! Whether KVM runs guests on this machine: a `/dev/kvm` that opens may still run none.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::peer;

/// The daemon's own proof, made once in this process, since one that fails takes ten seconds. Without a daemon to make
/// it there is none.
pub fn is_proved() -> bool {
    static PROVED: OnceLock<bool> = OnceLock::new();
    *PROVED.get_or_init(prove)
}

fn prove() -> bool {
    let Ok(daemon) = peer::ours("holdfast-node") else { return false };
    let mut proof = Command::new(daemon);
    proof.arg("prove-kvm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    proof.status().is_ok_and(|status| status.success())
}
