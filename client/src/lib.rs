//! How Holdfast's programs read from the API: no object that cannot be read stops another.
//!
//! ```text
//! bytes ──► Raw (any JSON; who it is) ──► Read<K> (the object, and what of it could not be read)
//! ```
//!
//! A list, a watch and the answer to a write are taken as [`Raw`] first, which never fails; each object is then decoded
//! alone. One that does not decode whole is *unknown*, which is not *missing*: [`Read`] holds what could be read, and
//! [`Faults`] names the rest, so that whoever decides knows what it does not know.

mod faults;
#[cfg(feature = "watch")]
mod pages;
mod raw;
mod read;
#[cfg(feature = "watch")]
mod watch;

use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};

pub use faults::Faults;
#[cfg(feature = "watch")]
pub use pages::paged;
pub use raw::Raw;
pub use read::{Read, part};
#[cfg(feature = "watch")]
pub use watch::{Event, watch};

/// All objects of a kind, in every namespace.
pub fn all<K: Resource<DynamicType = ()>>(client: Client) -> Api<Raw> {
    Api::all_with(client, &kube::api::ApiResource::erase::<K>(&()))
}

/// The objects of a kind in one namespace.
pub fn namespaced<K>(client: Client, namespace: &str) -> Api<Raw>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced_with(client, namespace, &kube::api::ApiResource::erase::<K>(&()))
}
