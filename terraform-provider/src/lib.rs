//! The Holdfast provider for Terraform and OpenTofu. The program is `main.rs`; it is a library beside it so that tests
//! reach the protocol's messages and the codec.

pub mod package;
pub mod plugin;
pub mod resources;
