//! The rules of a resource over random configurations of every kind, in which anything may be unknown.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::field::Absent;
use super::image::Image;
use super::kind::{Kind, Whole, set};
use super::managed::Managed;
use super::network::Network;
use super::ssh_key::SshKey;
use super::tests::{applied, plan};
use super::virtual_machine::VirtualMachine;
use crate::plugin::consistency;
use crate::plugin::provider::{Plan, Resource};
use crate::plugin::schema::{Attribute, Nesting, Presence, Shape};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// Few, so that equal ones meet; some mean the same in another spelling.
const TEXTS: [&str; 7] =
    ["a", "b", "c", "1Gi", "1024Mi", "Gr\u{fc}\u{df}e", "#cloud-config\n  runcmd:   [ a ]\n\n"];
const ON_CHANGE: [&str; 3] = ["ignore", "reboot", "replace"];

/// Two configurations that follow each other, and the second while a part of it is not known yet.
#[derive(Debug)]
struct Life {
    first: Whole,
    second: Whole,
    hazy: Whole,
}

impl Life {
    fn strategy<K: Kind>() -> impl Strategy<Value = Self> {
        let schema = Managed::<K>::new().schema().unwrap();
        let all = || object(schema.attributes()).prop_map(tidied);
        let schema = schema.clone();
        let fields = Managed::<K>::new().fields.spec;
        (all(), all(), vec(0..6_u8, 1..40)).prop_map(move |(first, mut second, haze)| {
            // Else most changes would replace, and few would be told from a replacement.
            if haze.first() != Some(&0) {
                let immutable = fields.iter().filter(|it| it.immutable).map(|it| it.attribute.as_str());
                for name in immutable.chain(["name", "namespace"]) {
                    set(&mut second, &[name], first.attribute(name).clone());
                }
            }
            let mut rolls = haze.into_iter().cycle();
            let hazy = Whole(hazy(schema.attributes(), &second, &mut || rolls.next().unwrap()));
            Self { first: Whole(first), second: Whole(second), hazy }
        })
    }

    /// What an apply of the first leaves.
    fn settled<K: Kind>(&self) -> Whole {
        applied::<K>(&self.first, None, &plan::<K>(None, &self.first))
    }

    /// The change to the second, unless it is refused.
    fn change<K: Kind>(&self) -> Option<(Whole, Plan<Whole>)> {
        let prior = self.settled::<K>();
        let change = plan::<K>(Some(&prior), &self.second);
        (!change.diagnostics.has_errors()).then_some((prior, change))
    }
}

/// A configuration of these attributes.
fn object(attributes: &[Attribute]) -> BoxedStrategy<Value> {
    let each = |it: &Attribute| (Just(it.name.clone()), one(it));
    let each: Vec<_> = attributes.iter().map(each).collect();
    each.prop_map(|all| Value::Object(all.into_iter().collect())).boxed()
}

fn one(attribute: &Attribute) -> BoxedStrategy<Value> {
    let there = match &attribute.shape {
        Shape::Plain(_) if attribute.name == "on_user_data_change" => {
            prop::sample::select(&ON_CHANGE[..]).prop_map(Value::from).boxed()
        }
        Shape::Plain(ty) => plain(ty),
        Shape::Nested(Nesting::List, inner) => vec(object(inner), 0..4).prop_map(without_twins).boxed(),
        Shape::Nested(Nesting::Single | Nesting::Map, inner) => object(inner),
    };
    match attribute.presence {
        Presence::Computed => Just(Value::Null).boxed(),
        Presence::Required => there,
        Presence::Optional | Presence::OptionalComputed => prop_oneof![Just(Value::Null), there].boxed(),
    }
}

fn plain(ty: &Type) -> BoxedStrategy<Value> {
    let text = || prop::sample::select(&TEXTS[..]);
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Type::Number => (0..4_i64).prop_map(Value::from).boxed(),
        Type::String | Type::Object(_) => text().prop_map(Value::from).boxed(),
        Type::List(ty) | Type::Set(ty) => vec(plain(ty), 0..3).prop_map(Value::List).boxed(),
        Type::Map(ty) => prop::collection::btree_map(text().prop_map(str::to_owned), plain(ty), 0..3)
            .prop_map(Value::Map)
            .boxed(),
    }
}

/// Elements have a name of their own.
fn without_twins(elements: Vec<Value>) -> Value {
    let mut kept: Vec<Value> = Vec::new();
    for element in elements {
        if !kept.iter().any(|it| it.attribute("name") == element.attribute("name")) {
            kept.push(element);
        }
    }
    Value::List(kept)
}

/// The same with one source of each text for cloud-init, as the rules of the kind demand.
fn tidied(mut config: Value) -> Value {
    for text in ["user_data", "network_data"] {
        let [wo, version, secret] = ["_wo", "_wo_version", "_secret"].map(|end| format!("{text}{end}"));
        let is_set = |config: &Value, name: &str| !config.attribute("cloud_init").attribute(name).is_null();
        let with_version = is_set(&config, &wo) && is_set(&config, &version);
        let mut gone = Vec::new();
        if !with_version || is_set(&config, text) {
            gone.extend([&wo, &version]);
        }
        if with_version || is_set(&config, text) {
            gone.push(&secret);
        }
        if config.attribute("cloud_init").is_null() {
            continue;
        }
        for name in gone {
            set(&mut config, &["cloud_init", name], Value::Null);
        }
    }
    config
}

/// The same with unknown values where the dice say so.
fn hazy(attributes: &[Attribute], config: &Value, dice: &mut impl FnMut() -> u8) -> Value {
    let one = |it: &Attribute| {
        let value = config.attribute(&it.name);
        let value = match (&it.presence, dice()) {
            (Presence::Computed, _) => value.clone(),
            (_, 0) if value.is_null() => Value::UNKNOWN,
            (_, 0) => Value::UNKNOWN_NOT_NULL,
            _ => match (&it.shape, value) {
                (Shape::Nested(_, inner), Value::Object(_)) => hazy(inner, value, dice),
                (Shape::Nested(_, inner), Value::List(elements)) => {
                    Value::List(elements.iter().map(|element| hazy(inner, element, dice)).collect())
                }
                _ => value.clone(),
            },
        };
        (it.name.clone(), value)
    };
    Value::Object(attributes.iter().map(one).collect())
}

fn run<K: Kind>(check: fn(&Life)) {
    let usual = ProptestConfig::with_source_file(file!());
    // Each reads the CRD some ten times, which is slow; what is rare is found in the runs of many days.
    let cases = (usual.cases / 8).min(400);
    let mut runner = TestRunner::new(ProptestConfig { cases, ..usual });
    runner
        .run(&Life::strategy::<K>(), |life| {
            check(&life);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{}: {error}", K::NAME));
}

/// Runs a check over lives of every kind.
macro_rules! of_every_kind {
    ($check:ident) => {
        run::<Image>($check::<Image>);
        run::<Network>($check::<Network>);
        run::<SshKey>($check::<SshKey>);
        run::<VirtualMachine>($check::<VirtualMachine>);
    };
}

/// `plan` asks the host's rules of each of these.
#[test]
fn host_rule_1_and_rule_1_any_plan_is_valid_and_the_same_each_time() {
    fn check<K: Kind>(life: &Life) {
        let settled = life.settled::<K>();
        for prior in [None, Some(&settled)] {
            for config in [&life.first, &life.second, &life.hazy] {
                assert_eq!(plan::<K>(prior, config), plan::<K>(prior, config));
            }
        }
    }
    of_every_kind!(check);
}

#[test]
fn host_rule_2_a_plan_only_learns_when_a_value_gets_known_and_may_come_to_do_less() {
    fn check<K: Kind>(life: &Life) {
        let schema = Managed::<K>::new().schema().unwrap();
        let settled = life.settled::<K>();
        for prior in [None, Some(&settled)] {
            let [first, second] = [&life.hazy, &life.second].map(|it| plan::<K>(prior, it));
            if first.diagnostics.has_errors() || second.diagnostics.has_errors() {
                continue;
            }
            let findings = consistency::replanned(&schema, &first.planned.0, &second.planned.0);
            assert!(findings.is_empty(), "{findings:?}");
            // A replacement is made anew once the old object is gone, so the host asks only whether one was foreseen.
            assert!(!first.replace.is_empty() || second.replace.is_empty(), "{:?}", second.replace);
            assert!(
                Some(&first.planned) != prior || Some(&second.planned) == prior,
                "an update out of nothing"
            );
        }
    }
    of_every_kind!(check);
}

/// `applied` asks the host's rules of each of these.
#[test]
fn host_rule_3_and_rule_4_what_was_planned_comes_back_as_it_was_spelled_and_the_next_plan_is_empty() {
    fn check<K: Kind>(life: &Life) {
        let Some((prior, change)) = life.change::<K>() else { return };
        for (config, state) in
            [(&life.first, prior.clone()), (&life.second, applied::<K>(&life.second, Some(&prior), &change))]
        {
            let again = plan::<K>(Some(&state), config);
            assert_eq!((again.planned, again.replace.len()), (state, 0));
        }
    }
    of_every_kind!(check);
}

#[test]
fn rule_2_what_is_not_configured_is_planned_as_its_default_whatever_was_there() {
    fn check<K: Kind>(life: &Life) {
        let planned = plan::<K>(Some(&life.settled::<K>()), &life.hazy).planned.0;
        for field in &Managed::<K>::new().fields.spec {
            if let (Value::Null, Absent::Default(default)) =
                (life.hazy.0.attribute(&field.attribute), &field.absent)
            {
                assert_eq!(planned.attribute(&field.attribute), default, "{}", field.attribute);
            }
        }
    }
    of_every_kind!(check);
}

#[test]
fn rule_3_what_the_server_says_is_unknown_only_if_this_change_writes() {
    fn check<K: Kind>(life: &Life) {
        let first = plan::<K>(None, &life.first).planned.0;
        assert_eq!(first.attribute("uid"), &Value::UNKNOWN_NOT_NULL);
        let Some((prior, change)) = life.change::<K>() else { return };
        let kept = |name: &str| change.planned.0.attribute(name) == prior.0.attribute(name);
        assert!(kept("uid"));
        let fields = Managed::<K>::new().fields.spec;
        let mut written = fields.iter().filter(|field| !field.is_own()).map(|field| &field.attribute);
        assert!(
            kept("status")
                || ["name", "labels", "annotations"].iter().any(|it| !kept(it))
                || written.any(|it| !kept(it))
        );
    }
    of_every_kind!(check);
}

#[test]
fn rule_6_what_replaces_is_planned_unknown_only_where_it_is_configured_unknown() {
    fn check<K: Kind>(life: &Life) {
        let planned = plan::<K>(Some(&life.settled::<K>()), &life.hazy).planned.0;
        for field in Managed::<K>::new().fields.spec.iter().filter(|field| field.immutable) {
            let name = field.attribute.as_str();
            let [planned, config] = [&planned, &life.hazy.0].map(|it| it.attribute(name).is_wholly_known());
            assert!(planned || !config, "{name}");
        }
    }
    of_every_kind!(check);
}

proptest! {
    #[test]
    fn rule_8_user_data_comes_through_byte_for_byte(text in any::<String>()) {
        let mut config = super::tests::config::<VirtualMachine>(&super::tests::machine());
        // As the host hands over all texts.
        let text = super::field::normal(&text);
        set(&mut config.0, &["cloud_init", "user_data"], text.clone());
        let planned = plan::<VirtualMachine>(None, &config);
        let target = Managed::<VirtualMachine>::target(&planned.planned.0);
        let (kind, nothing) = (Managed::<VirtualMachine>::new(), Value::Null);
        let body = kind.body(&target, &nothing, &config.0, &planned.planned.0);
        prop_assert_eq!(Value::from(body["spec"]["cloudInit"]["userData"].as_str()), text.clone());
        let state = applied::<VirtualMachine>(&config, None, &planned);
        prop_assert_eq!(state.0.attribute("cloud_init").attribute("user_data"), &text);
    }
}
