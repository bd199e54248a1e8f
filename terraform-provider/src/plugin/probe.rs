//! The codec under any bytes: what a fuzzer calls (`fuzz/`), and a test with bytes that are bent by chance. Whatever comes
//! from the host is refused or understood; what was understood can be written, and is read as the same again.

use std::collections::BTreeMap;

use super::ty::Type;
use super::value::Value;
use super::{json, msgpack};

/// What the codec must never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something was read that cannot be written.
    #[error("a value that was read cannot be written")]
    Unwritable,
    /// Something was written that is read as something else.
    #[error("a value that was written is read as another")]
    Unfaithful,
}

/// Types that the first byte chooses from: each form alone, and the last with all forms in one another.
pub fn types() -> Vec<Type> {
    let object = |attributes: &[(&str, Type)]| {
        Type::Object(attributes.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect())
    };
    let page = object(&[("name", Type::String), ("number", Type::Number)]);
    vec![
        Type::Bool,
        Type::Number,
        Type::String,
        Type::list(Type::list(Type::Bool)),
        Type::set(Type::String),
        Type::map(Type::map(Type::Number)),
        Type::Object(BTreeMap::new()),
        // The attributes of `examples/notes.rs`, so that what a host sent for one can begin a run.
        object(&[
            ("id", Type::String),
            ("pages", Type::list(page)),
            ("secret_wo", Type::String),
            ("secret_wo_version", Type::Number),
            ("slow", Type::Bool),
            ("tags", Type::set(Type::String)),
            ("text", Type::String),
            ("title", Type::String),
        ]),
    ]
}

/// Reads the bytes after the first in both encodings, as the type that the first one chooses.
pub fn probe(bytes: &[u8]) -> Result<(), Fault> {
    let (types, Some((choice, bytes))) = (types(), bytes.split_first()) else { return Ok(()) };
    let ty = &types[usize::from(*choice) % types.len()];
    let read = [msgpack::decode(bytes, ty), json::decode(bytes, ty)];
    read.into_iter().flatten().try_for_each(|value| written(&value, ty))
}

fn written(value: &Value, ty: &Type) -> Result<(), Fault> {
    let bytes = msgpack::encode(value, ty).map_err(|_| Fault::Unwritable)?;
    let mut again = vec![msgpack::decode(&bytes, ty)];
    if value.is_wholly_known() {
        let text = json::encode(value).map_err(|_| Fault::Unwritable)?;
        again.push(json::decode(text.to_string().as_bytes(), ty));
    }
    let same = again.iter().all(|it| it.as_ref() == Ok(value));
    if same { Ok(()) } else { Err(Fault::Unfaithful) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::msgpack_tests::recorded;

    /// Enough for each byte of what was recorded to be bent in many ways, in less than a second.
    const ROUNDS: u64 = 20_000;

    /// The end of `SplitMix64`: far outputs for near inputs, the same in each run.
    fn dice(seed: u64) -> u64 {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Up to four changes: a byte replaced, taken out, put in, or all after it cut off.
    fn bent(mut bytes: Vec<u8>, round: u64) -> Vec<u8> {
        for step in 0..=dice(round) % 4 {
            let roll = dice(round << 3 | step << 1 | 1).to_le_bytes();
            let at = usize::from(u16::from_le_bytes([roll[0], roll[1]])) % bytes.len().max(1);
            match roll[2] % 8 {
                _ if bytes.is_empty() => bytes.push(roll[3]),
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, roll[3]),
                2 => bytes.truncate(at),
                3 => bytes[at] ^= 1 << (roll[3] % 8),
                _ => bytes[at] = roll[3],
            }
        }
        bytes
    }

    #[test]
    fn what_hosts_sent_and_was_bent_by_chance_is_refused_or_understood() {
        let last = u8::try_from(types().len() - 1).unwrap();
        let texts: [&[u8]; 2] = [b"\x05{\"a\":{\"b\":1.50}}", b"\x04[\"b\",\"a\",\"b\",null]"];
        let sent = recorded().into_iter().map(|(bytes, _)| [&[last], bytes].concat());
        let all: Vec<_> = sent.chain(texts.map(<[u8]>::to_vec)).collect();
        for round in 0..ROUNDS {
            let start = &all[usize::try_from(round).unwrap() % all.len()];
            let bytes = bent(start.clone(), round);
            assert_eq!(probe(&bytes), Ok(()), "{bytes:x?}");
        }
        assert!(all.iter().all(|bytes| probe(bytes) == Ok(())), "as they were sent");
    }
}
