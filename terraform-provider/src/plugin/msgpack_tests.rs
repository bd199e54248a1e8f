use std::collections::BTreeMap;

use proptest::prelude::*;

use super::codec::in_set_order;
use super::msgpack::{decode, encode};
use super::ty::Type;
use super::value::Value;
use super::{probe, samples};

fn named() -> Type {
    Type::Object(BTreeMap::from([("id".into(), Type::String), ("name".into(), Type::String)]))
}

fn number(text: &str) -> Value {
    Value::Number(text.parse().unwrap())
}

/// What Terraform 1.11.4, OpenTofu 1.6.2 and OpenTofu 1.12.6 send for `name = "x"` where `id` is not set.
#[test]
fn an_object_is_a_map_of_all_its_attributes_in_order() {
    let bytes = b"\x82\xa2id\xc0\xa4name\xa1x";
    let value = Value::object([("id", Value::Null), ("name", "x".into())]);
    assert_eq!(decode(bytes, &named()), Ok(value.clone()));
    assert_eq!(encode(&value, &named()).unwrap(), bytes);
}

fn a_note(set: &[(&str, Value)]) -> Value {
    let names = ["id", "pages", "secret_wo", "secret_wo_version", "slow", "tags", "text", "title"];
    let find =
        |name: &str| set.iter().find(|(it, _)| *it == name).map_or(Value::Null, |(_, value)| value.clone());
    Value::object(names.map(|name| (name, find(name))))
}

fn numbered(name: &str, number: Value) -> Value {
    Value::object([("name", name.into()), ("number", number)])
}

fn page(name: Value) -> Value {
    Value::object([("name", name), ("number", Value::Null)])
}

/// What was recorded for resources of `examples/notes.rs` with `terraform_data` attributes that are known later.
/// Terraform 1.11.4 and OpenTofu 1.12.6 sent the same bytes for the same configuration.
pub(super) fn recorded() -> Vec<(&'static [u8], Value)> {
    vec![
        (
            b"\x88\xa2id\xc0\xa5pages\x90\xa9secret_wo\xc0\xb1secret_wo_version\xb436893488147419103233\xa4slow\
              \xc7\x03\x0c\x81\x01\xc2\xa4tags\xc0\xa4text\xc0\xa5title\xa1n",
            a_note(&[
                ("pages", Value::List(vec![])),
                ("secret_wo_version", number("36893488147419103233")),
                ("slow", Value::UNKNOWN_NOT_NULL),
                ("title", "n".into()),
            ]),
        ),
        (
            b"\x88\xa2id\xc0\xa5pages\x92\x82\xa4name\xa1p\xa6number\xc0\x82\xa4name\xd4\x00\x00\xa6number\xc0\xa9\
              secret_wo\xa1s\xb1secret_wo_version\xcb?\xe0\x00\x00\x00\x00\x00\x00\xa4slow\xc0\xa4tags\x93\xa1a\xa1b\
              \xd4\x00\x00\xa4text\xc7\x0c\x0c\x82\x01\xc2\x02\xa7prefix-\xa5title\xa1x",
            a_note(&[
                ("pages", Value::List(vec![page("p".into()), page(Value::UNKNOWN)])),
                ("secret_wo", "s".into()),
                ("secret_wo_version", number("0.5")),
                ("tags", Value::List(in_set_order(vec!["a".into(), "b".into(), Value::UNKNOWN]))),
                ("text", Value::UNKNOWN_NOT_NULL),
                ("title", "x".into()),
            ]),
        ),
        (
            b"\x88\xa2id\xc0\xa5pages\xc7\x03\x0c\x81\x01\xc2\xa9secret_wo\xc0\xb1secret_wo_version\xa30.1\xa4slow\
              \xc0\xa4tags\xd4\x00\x00\xa4text\xc0\xa5title\xa1t",
            a_note(&[
                ("pages", Value::UNKNOWN_NOT_NULL),
                ("secret_wo_version", number("0.1")),
                ("tags", Value::UNKNOWN),
                ("title", "t".into()),
            ]),
        ),
        // A set of one element that is not known yet, whose length is said beside it.
        (
            b"\x88\xa2id\xc0\xa5pages\xd4\x00\x00\xa9secret_wo\xc0\xb1secret_wo_version\xce\x00\x01\x11p\xa4slow\xc0\xa4\
              tags\xc7\x05\x0c\x82\x05\x01\x06\x01\xa4text\xc0\xa5title\xa1t",
            a_note(&[
                ("pages", Value::UNKNOWN),
                ("secret_wo_version", number("70000")),
                ("tags", Value::UNKNOWN),
                ("title", "t".into()),
            ]),
        ),
        // A plan that came back for the apply, and states after it (a UUID as zeros).
        (
            b"\x88\xa2id\xd4\x00\x00\xa5pages\x91\x82\xa4name\xa1x\xa6number\xd4\x00\x00\xa9secret_wo\xc0\xb1\
              secret_wo_version\xce\x00\x01\x11p\xa4slow\xc0\xa4tags\x91\xa1x\xa4text\xabnothing yet\xa5title\xa1t",
            a_note(&[
                ("id", Value::UNKNOWN),
                ("pages", Value::List(vec![numbered("x", Value::UNKNOWN)])),
                ("secret_wo_version", number("70000")),
                ("tags", Value::List(vec!["x".into()])),
                ("text", "nothing yet".into()),
                ("title", "t".into()),
            ]),
        ),
        (
            b"\x88\xa2id\xa1x\xa5pages\x92\x82\xa4name\xa1p\xa6number\x01\x82\xa4name\xa1x\xa6number\x02\xa9secret_wo\xc0\
              \xb1secret_wo_version\xff\xa4slow\xc0\xa4tags\x93\xa1a\xa1b\xa1x\xa4text\xd9+prefix-\
              00000000-0000-0000-0000-000000000000\xa5title\xa1x",
            a_note(&[
                ("id", "x".into()),
                ("pages", Value::List(vec![numbered("p", 1.into()), numbered("x", 2.into())])),
                ("secret_wo_version", number("-1")),
                ("tags", Value::List(vec!["a".into(), "b".into(), "x".into()])),
                ("text", "prefix-00000000-0000-0000-0000-000000000000".into()),
                ("title", "x".into()),
            ]),
        ),
        (
            b"\x88\xa2id\xa1n\xa5pages\x90\xa9secret_wo\xc0\xb1secret_wo_version\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xa4\
              slow\xc2\xa4tags\xc0\xa4text\xabnothing yet\xa5title\xa1n",
            a_note(&[
                ("id", "n".into()),
                ("pages", Value::List(vec![])),
                ("secret_wo_version", number("9223372036854775807")),
                ("slow", false.into()),
                ("text", "nothing yet".into()),
                ("title", "n".into()),
            ]),
        ),
    ]
}

#[test]
fn recorded_values_mean_what_was_written_and_can_be_sent_back() {
    let note = probe::types().pop().unwrap();
    for (bytes, value) in recorded() {
        assert_eq!(decode(bytes, &note), Ok(value.clone()));
        let sent = encode(&value, &note).unwrap();
        assert_eq!(decode(&sent, &note), Ok(value.clone()));
        // What says more about an unknown value than we do cannot be the same; all else is, byte for byte.
        if value.is_wholly_known() {
            assert_eq!(sent, bytes);
        }
    }
}

#[test]
fn a_missing_or_surplus_attribute_is_refused_in_both_directions() {
    let missing = "name: the attribute is missing";
    let surplus = "x: the schema has no such attribute";
    assert_eq!(decode(b"\x81\xa2id\xc0", &named()).unwrap_err().to_string(), missing);
    assert_eq!(decode(b"\x81\xa1x\xc0", &named()).unwrap_err().to_string(), surplus);
    let less = Value::object([("id", Value::Null)]);
    let more = Value::object([("id", Value::Null), ("name", Value::Null), ("x", Value::Null)]);
    assert_eq!(encode(&less, &named()).unwrap_err().to_string(), missing);
    assert_eq!(encode(&more, &named()).unwrap_err().to_string(), surplus);
}

#[test]
fn any_extension_is_unknown_and_only_one_says_more() {
    let cases: [(&[u8], Value); 5] = [
        (b"\xd4\x00\x00", Value::UNKNOWN),
        (b"\xd4\x7f\x00", Value::UNKNOWN),
        (b"\xc7\x03\x0c\x81\x01\xc2", Value::UNKNOWN_NOT_NULL),
        // With a prefix as well, which is ignored.
        (b"\xc7\x06\x0c\x82\x01\xc2\x02\xa1a", Value::UNKNOWN_NOT_NULL),
        // The right code over bytes that are no map.
        (b"\xc7\x01\x0c\xc1", Value::UNKNOWN),
    ];
    for (bytes, value) in cases {
        assert_eq!(decode(bytes, &Type::String), Ok(value), "{bytes:x?}");
    }
    assert_eq!(encode(&Value::UNKNOWN, &Type::Bool).unwrap(), b"\xd4\x00\x00");
    assert_eq!(encode(&Value::UNKNOWN_NOT_NULL, &Type::Bool).unwrap(), b"\xc7\x03\x0c\x81\x01\xc2");
}

#[test]
fn a_number_is_an_integer_a_float_or_text_whichever_is_exact() {
    let cases: [(&[u8], Value); 5] = [
        (b"\x07", number("7")),
        (b"\xff", number("-1")),
        (b"\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00", number("0.5")),
        (b"\xa30.1", number("0.1")),
        (b"\xb436893488147419103233", number("36893488147419103233")),
    ];
    for (bytes, value) in cases {
        assert_eq!(decode(bytes, &Type::Number), Ok(value.clone()));
        assert_eq!(encode(&value, &Type::Number).unwrap(), bytes, "{value:?}");
    }
    assert_eq!(
        decode(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", &Type::Number),
        Ok(number("18446744073709551615"))
    );
    assert!(decode(b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", &Type::Number).is_err(), "infinity");
}

#[test]
fn equal_sets_are_equal_whatever_order_they_come_in() {
    let ty = Type::set(Type::String);
    assert_eq!(decode(b"\x93\xa1b\xa1a\xa1b", &ty), decode(b"\x92\xa1a\xa1b", &ty));
}

#[test]
fn a_mismatch_names_its_place_and_never_the_value() {
    let ty = Type::Object(BTreeMap::from([("disks".into(), Type::list(Type::map(Type::Bool)))]));
    let refusal = decode(b"\x81\xa5disks\x91\x81\xa1k\xa7hunter2", &ty).unwrap_err();
    assert_eq!(refusal.to_string(), r#"disks[0]["k"]: expected true or false"#);
}

#[test]
fn hostile_bytes_are_refused_without_a_panic() {
    let deep = [b"\x91".repeat(100_000), vec![0xc0]].concat();
    let cases: [&[u8]; 6] = [b"", &deep, b"\xdd\xff\xff\xff\xff", b"\xc0\xc0", b"\xa1\xff", b"\x81\x01\xc0"];
    for bytes in cases {
        for ty in [named(), Type::String, Type::map(Type::String)] {
            assert!(decode(bytes, &ty).is_err(), "{:x?}", &bytes[..bytes.len().min(8)]);
        }
    }
}

proptest! {
    #[test]
    fn every_value_survives_the_round_trip((ty, value) in samples::value()) {
        let bytes = encode(&value, &ty).unwrap();
        prop_assert_eq!(decode(&bytes, &ty).unwrap(), value);
    }

    #[test]
    fn random_bytes_never_panic(ty in samples::ty(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &ty);
    }

    #[test]
    fn bent_bytes_never_panic_and_what_they_give_has_the_type(
        (ty, value) in samples::value(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode(&value, &ty).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(bent) = decode(&bytes, &ty) {
            prop_assert!(encode(&bent, &ty).is_ok());
        }
    }
}
