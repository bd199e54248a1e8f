//! `holdfast-node`: makes libvirt on this host match what the API says, and goes on without the API.
//!
//! Start reading at `run.rs` (which loops there are) and `vm/mod.rs` (what one of them does with a virtual machine).

mod accelerator;
mod apart;
mod args;
mod clock;
mod config;
mod confined;
mod contact;
mod disk;
mod durable;
mod enrol;
mod health;
mod host_addresses;
mod identity;
mod image;
mod jitter;
mod libvirt;
mod log;
mod memory;
mod network;
mod node;
mod objects;
mod retry;
mod run;
mod secret;
mod seed;
mod storage;
mod supervisor;
mod vm;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    memory::keep_little();
    // The first use of TLS without a provider would panic. It fails only if one is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    args::Args::parse().run()
}
