//! The plugin kit: everything between Terraform or OpenTofu and a provider's own logic. It knows the protocol and
//! nothing of what a provider manages.
//!
//! ```text
//! host ─ environment ─▶ handshake ─▶ serve (socket, TLS) ─▶ service ─▶ any ─▶ Provider, Resource, DataSource
//!                                                            │  ▲              (the traits in `provider`)
//!                                             msgpack, json ─┘  └─ consistency: would the host accept the reply?
//! ```
//!
//! Start reading at `provider.rs` to write a resource, at `service.rs` to see what the host asks.

pub mod any;
pub mod codec;
pub mod connection;
pub mod consistency;
pub mod diagnostic;
pub mod document;
pub mod ending;
pub mod fields;
pub mod handshake;
pub mod json;
pub mod known;
pub mod log;
pub mod msgpack;
#[cfg(test)]
mod msgpack_tests;
pub mod number;
pub mod path;
pub mod probe;
pub mod proto;
pub mod provider;
#[cfg(test)]
pub(crate) mod samples;
pub mod schema;
pub mod serve;
pub mod service;
pub mod socket;
pub mod stop;
pub mod tls;
pub mod ty;
pub mod value;
pub mod wire;
