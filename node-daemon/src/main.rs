#[allow(dead_code, reason = "the vm driver calls it")]
mod durable;
#[allow(dead_code, unused_imports, reason = "the vm driver calls it")]
mod image;
#[allow(dead_code, reason = "the vm driver maps it")]
mod retry;

fn main() {}
