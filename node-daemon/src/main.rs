#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod objects;
#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod node;
#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod jitter;
#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod contact;
#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod config;
#[allow(dead_code, reason = "the vm driver calls it")]
mod durable;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod image;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod libvirt;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod network;
#[allow(dead_code, reason = "the vm driver maps it")]
mod retry;
#[allow(dead_code, reason = "the vm driver calls it")]
mod confined;
#[allow(dead_code, reason = "the vm driver calls it")]
mod disk;
#[allow(dead_code, reason = "the vm driver calls it")]
mod secret;
#[allow(dead_code, reason = "the vm driver calls it")]
mod seed;

#[allow(dead_code, unused_imports, reason = "the wiring calls it")]
mod vm;

fn main() {}
