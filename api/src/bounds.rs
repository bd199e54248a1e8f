//! How long texts and lists may be: what the schemas say, and what whoever fills a status keeps to.
//!
//! Everything that anybody writes has a bound, because controller, API server and nodes hold it in memory for everybody
//! else. Texts count characters, as the API server does.

/// A sentence for people, with the names it mentions. A longer one is [`cut`].
pub const SENTENCE: usize = 2048;
/// One word for programs, such as the reason of a condition or a version.
pub const WORD: usize = 128;
/// The name of an object of the API.
pub const NAME: usize = 253;
/// Namespace and name, such as `shop/web`.
pub const FULL_NAME: usize = 63 + 1 + NAME;
/// A UID or a resource version; the API server makes UIDs of 36 characters.
pub const UID: usize = 64;
/// A digest with its algorithm; SHA-512 in hexadecimal needs 135.
pub const DIGEST: usize = 135;
/// An IPv4 or IPv6 address.
pub const ADDRESS: usize = 45;
/// A certificate with its chain, PEM; one of ours has 800 characters.
pub const CERTIFICATE: usize = 16 * 1024;

/// Conditions of one object; a virtual machine has 9 types.
pub const CONDITIONS: usize = 16;
/// Labels that a selector asks for.
pub const SELECTOR: usize = 16;
/// The key of a label: a domain of 253 characters, `/` and 63 more.
pub const LABEL_KEY: usize = NAME + 1 + 63;
/// The value of a label.
pub const LABEL_VALUE: usize = 63;
/// Nodes, and namespaces of one node, that a status lists.
pub const LISTED: usize = 4096;
/// Virtual machines of one node; a host of 1 TiB has room for 7600 of the smallest.
pub const MACHINES: usize = 8192;
/// Orphans of one node that it reports.
pub const ORPHANS: usize = 2048;
/// Images in the cache of a node that it reports.
pub const IMAGES: usize = 1024;
/// IPv4 networks that a node offers subnets of, far more than any host has.
pub const POOLS: usize = 32;
/// Bridges that a node offers, far more than any host has.
pub const BRIDGES: usize = 64;
/// Ranges of VLANs of one bridge.
pub const VLANS: usize = 64;
/// Addresses listed for one interface.
pub const LISTED_ADDRESSES: usize = 16;
/// Addresses of one guest: 16 of each of its 8 interfaces.
pub const ADDRESSES: usize = 128;

/// The text, cut off with three dots where it has more than `most` characters.
pub fn cut(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        let dots = "...";
        let keep = text.char_indices().nth(most.saturating_sub(dots.len())).map_or(end, |(at, _)| at);
        text.truncate(keep);
        text.push_str(dots);
    }
    text
}

#[cfg(test)]
mod tests;
