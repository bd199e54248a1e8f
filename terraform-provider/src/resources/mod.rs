//! What the provider manages: one file per kind. It speaks the traits of `plugin/provider.rs` and knows neither gRPC nor
//! msgpack.

mod provider;

pub use provider::Holdfast;
