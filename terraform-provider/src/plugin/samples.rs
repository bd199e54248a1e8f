//! Random types and values for properties.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::codec::in_set_order;
use super::number::Number;
use super::ty::Type;
use super::value::Value;

/// A type and a value of it, in which anything may be null or unknown.
pub(crate) fn value() -> impl Strategy<Value = (Type, Value)> {
    ty().prop_flat_map(|ty| (Just(ty.clone()), of_type(&ty, true)))
}

/// A type and a value of it, in which nothing is unknown.
pub(crate) fn known_value() -> impl Strategy<Value = (Type, Value)> {
    ty().prop_flat_map(|ty| (Just(ty.clone()), of_type(&ty, false)))
}

/// Any type, three levels deep.
pub(crate) fn ty() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![Just(Type::Bool), Just(Type::Number), Just(Type::String)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::list),
            inner.clone().prop_map(Type::map),
            Just(Type::set(Type::String)),
            btree_map("[a-z][a-z0-9_]{0,6}", inner, 0..4).prop_map(Type::Object),
        ]
    })
}

fn number() -> impl Strategy<Value = Number> {
    let fraction = |text: String| text.parse().unwrap();
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        any::<f64>().prop_filter_map("finite", |float| Number::try_from(float).ok()),
        "-?[0-9]{1,40}\\.[0-9]{1,40}".prop_map(fraction),
    ]
}

/// A value of that type.
pub(crate) fn of_type(ty: &Type, with_unknown: bool) -> BoxedStrategy<Value> {
    let there = match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Number => number().prop_map(Value::Number).boxed(),
        Type::String => any::<String>().prop_map(Value::String).boxed(),
        Type::List(ty) => vec(of_type(ty, with_unknown), 0..4).prop_map(Value::List).boxed(),
        Type::Set(ty) => {
            let elements = vec(of_type(ty, with_unknown), 0..4);
            elements.prop_map(|elements| Value::List(in_set_order(elements))).boxed()
        }
        Type::Map(ty) => {
            btree_map(any::<String>(), of_type(ty, with_unknown), 0..4).prop_map(Value::Map).boxed()
        }
        Type::Object(types) => {
            let each = |(name, ty): (&String, &Type)| (Just(name.clone()), of_type(ty, with_unknown));
            let attributes: Vec<_> = types.iter().map(each).collect();
            attributes.prop_map(|all| Value::Object(all.into_iter().collect::<BTreeMap<_, _>>())).boxed()
        }
    };
    let unknown = u32::from(with_unknown);
    prop_oneof![
        8 => there,
        1 => Just(Value::Null),
        unknown => Just(Value::UNKNOWN),
        unknown => Just(Value::UNKNOWN_NOT_NULL),
    ]
    .boxed()
}
