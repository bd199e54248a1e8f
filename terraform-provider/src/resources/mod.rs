//! What the provider manages: one file per kind. It speaks the traits of `plugin/provider.rs` and knows neither gRPC nor
//! msgpack.
//!
//! ```text
//! provider ─▶ access ─▶ cluster      how to reach the API; the only client of it
//!    │                    ▲
//!    └─▶ managed, looked ─▶ kind ◀─ ssh_key, …     what all kinds do, and the rules of one
//!               ├────▶ field                       the CRD's fields as attributes, and back
//!               ├────▶ demand, rules               what is refused before the API is asked
//!               ├────▶ loss                        what a replacement would lose that nobody asked for
//!               └────▶ effect                      what a change does, for the documentation
//! ```

mod access;
mod cluster;
mod demand;
mod effect;
mod failure;
mod field;
mod image;
mod kind;
mod looked;
mod loss;
mod managed;
mod network;
mod node;
mod provider;
mod rules;
mod ssh_key;
mod timeouts;
mod unread;
mod verdict;
mod virtual_machine;

pub use kind::Site;
pub use provider::Holdfast;

#[cfg(test)]
mod input_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
