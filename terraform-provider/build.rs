//! Compiles the protocol files in Rust alone: no `protoc` is needed on any machine.

use std::error::Error;

const FILES: [&str; 2] = ["proto/tfplugin6.proto", "proto/plugin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    // The client is for our own tests, which drive the binary as Terraform does; linking drops it from the binary.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
