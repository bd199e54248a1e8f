//! `holdfast-node`: makes libvirt on this host match what the API says, and goes on without the API.
//!
//! Start reading at `run.rs` (which loops there are) and `vm/mod.rs` (what one of them does with a virtual machine).

mod accelerator;
mod args;
mod config;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod confined;
mod contact;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod disk;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod durable;
mod enrol;
mod health;
mod identity;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod image;
mod jitter;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod libvirt;
mod log;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod network;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod node;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod objects;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod retry;
mod run;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod secret;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod seed;
mod supervisor;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod vm;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything else: the first use of TLS without a provider would panic. It fails only if one is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    args::Args::parse().run()
}
