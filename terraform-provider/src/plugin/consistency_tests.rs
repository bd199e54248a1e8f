use super::*;
use crate::plugin::schema::Owner;

fn schema() -> Schema {
    let disk = vec![
        Attribute::required("name", Type::String, "Name."),
        Attribute::optional_computed("size", Type::String, "Size."),
    ];
    let port = vec![Attribute::optional_computed("number", Type::Number, "Number.")];
    let attributes = vec![
        Attribute::computed("id", Type::String, "Identifier."),
        Attribute::required("name", Type::String, "Name."),
        Attribute::optional("note", Type::String, "Note."),
        Attribute::optional_computed("mac", Type::String, "Address."),
        Attribute::optional("disks", Shape::list(disk), "Disks."),
        Attribute::optional("ports", Shape::Nested(Nesting::Map, port), "Ports."),
        Attribute::optional("secret", Type::String, "Secret.").write_only(),
        Attribute::optional("keys", Type::set(Type::String), "Keys."),
    ];
    Schema::new(Owner::Resource, "", attributes).unwrap()
}

/// An object of the schema with these attributes and null for the others.
fn object(set: &[(&str, Value)]) -> Value {
    let all = schema().attributes().iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    let find =
        |name: &String| set.iter().find(|(it, _)| it == name).map_or(Value::Null, |(_, value)| value.clone());
    Value::object(all.iter().map(|name| (name.clone(), find(name))))
}

fn disk(name: &str, size: Value) -> Value {
    Value::object([("name", name.into()), ("size", size)])
}

fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.at.to_string()).collect()
}

fn plan(prior: &Value, config: &Value, wanted: &Value) -> Vec<String> {
    places(&planned(&schema(), prior, config, wanted))
}

#[test]
fn host_rule_1_a_plan_may_compute_what_is_not_configured_and_nothing_else() {
    let config = object(&[("name", "web".into())]);
    let good = object(&[("name", "web".into()), ("id", Value::UNKNOWN), ("mac", Value::UNKNOWN_NOT_NULL)]);
    assert!(plan(&Value::Null, &config, &good).is_empty());
    let bad = object(&[("name", "db".into()), ("note", "mine".into())]);
    assert_eq!(plan(&Value::Null, &config, &bad), ["name", "note"]);
}

#[test]
fn host_rule_1_a_plan_may_keep_what_was_there_only_where_something_is_configured() {
    let prior = object(&[("name", "WEB".into()), ("note", "old".into())]);
    let config = object(&[("name", "web".into())]);
    assert!(plan(&prior, &config, &object(&[("name", "WEB".into())])).is_empty());
    assert_eq!(plan(&prior, &config, &object(&[("name", "web".into()), ("note", "old".into())])), ["note"]);
}

#[test]
fn host_rule_1_a_nested_list_has_as_many_elements_as_configured_none_of_them_unknown() {
    let with = |disks: Value| object(&[("name", "web".into()), ("disks", disks)]);
    let config = with(Value::List(vec![disk("root", Value::Null)]));
    let computed = with(Value::List(vec![disk("root", Value::UNKNOWN)]));
    assert!(plan(&Value::Null, &config, &computed).is_empty());
    assert_eq!(plan(&Value::Null, &config, &with(Value::List(vec![]))), ["disks"]);
    assert_eq!(plan(&Value::Null, &config, &with(Value::UNKNOWN)), ["disks"]);
    assert_eq!(plan(&Value::Null, &config, &with(Value::Null)), ["disks"]);
    assert_eq!(plan(&Value::Null, &config, &with(Value::List(vec![Value::UNKNOWN]))), ["disks[0]"]);
    let renamed = with(Value::List(vec![disk("data", Value::UNKNOWN)]));
    assert_eq!(plan(&Value::Null, &config, &renamed), ["disks[0].name"]);
}

#[test]
fn host_rule_1_a_nested_map_has_the_keys_that_are_configured() {
    let with = |entries: &[(&str, Value)]| {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        object(&[("name", "web".into()), ("ports", Value::Map(entries.collect()))])
    };
    let port = |number: Value| Value::object([("number", number)]);
    let config = with(&[("ssh", port(Value::Null))]);
    assert!(plan(&Value::Null, &config, &with(&[("ssh", port(Value::UNKNOWN))])).is_empty());
    assert_eq!(plan(&Value::Null, &config, &with(&[])), ["ports"]);
    assert_eq!(plan(&Value::Null, &config, &with(&[("web", port(Value::UNKNOWN))])), ["ports"]);
    assert_eq!(plan(&Value::Null, &config, &with(&[("ssh", Value::UNKNOWN)])), ["ports[\"ssh\"]"]);
}

#[test]
fn host_rule_1_the_spelling_of_a_list_element_is_kept_by_position_not_by_name() {
    let with = |disks: Vec<Value>| object(&[("name", "web".into()), ("disks", Value::List(disks))]);
    let prior = with(vec![disk("a", "4Gi".into()), disk("b", "1Gi".into())]);
    let config = with(vec![disk("b", "1024Mi".into()), disk("a", "4096Mi".into())]);
    let by_name = with(vec![disk("b", "1Gi".into()), disk("a", "4Gi".into())]);
    assert_eq!(plan(&prior, &config, &by_name), ["disks[0].size", "disks[1].size"]);
}

#[test]
fn host_rule_1_an_unknown_configuration_stays_unknown_whatever_is_said_about_it() {
    let config = object(&[("name", Value::UNKNOWN_NOT_NULL), ("disks", Value::UNKNOWN)]);
    let wanted = object(&[("name", Value::UNKNOWN), ("disks", Value::UNKNOWN_NOT_NULL)]);
    assert!(plan(&Value::Null, &config, &wanted).is_empty());
    assert_eq!(plan(&Value::Null, &config, &object(&[("name", "x".into())])), ["name", "disks"]);
}

#[test]
fn host_rule_1_a_plan_is_null_exactly_when_the_configuration_is() {
    let there = object(&[("name", "web".into())]);
    assert_eq!(plan(&there, &Value::Null, &there), [""]);
    assert_eq!(plan(&there, &there, &Value::Null), [""]);
    assert!(plan(&there, &Value::Null, &Value::Null).is_empty());
}

#[test]
fn host_rule_6_write_only_attributes_are_null_in_plan_and_state() {
    let config = object(&[("name", "web".into()), ("secret", "s".into())]);
    assert!(plan(&Value::Null, &config, &object(&[("name", "web".into())])).is_empty());
    assert_eq!(plan(&Value::Null, &config, &config), ["secret"]);
    assert_eq!(places(&settled(&schema(), &config)), ["secret"]);
}

#[test]
fn host_rule_3_every_known_planned_leaf_comes_back_identical() {
    let wanted = object(&[("name", "web".into()), ("id", Value::UNKNOWN_NOT_NULL), ("mac", Value::UNKNOWN)]);
    let good = object(&[("name", "web".into()), ("id", "7".into())]);
    assert!(applied(&schema(), &wanted, &good).is_empty());
    let bad = object(&[("name", "db".into()), ("note", "new".into())]);
    assert_eq!(places(&applied(&schema(), &wanted, &bad)), ["id", "name", "note"]);
}

#[test]
fn host_rule_4_after_an_apply_nothing_is_unknown_and_there_is_something_unless_it_was_deleted() {
    let wanted = object(&[("name", "web".into()), ("mac", Value::UNKNOWN)]);
    let good = object(&[("name", "web".into()), ("mac", "m".into())]);
    assert!(applied(&schema(), &wanted, &good).is_empty());
    assert_eq!(places(&applied(&schema(), &wanted, &wanted)), [""], "left unknown");
    assert_eq!(places(&applied(&schema(), &wanted, &Value::Null)), [""], "a create that left nothing");
    assert_eq!(places(&applied(&schema(), &Value::Null, &good)), [""], "a delete that left something");
    assert!(applied(&schema(), &Value::Null, &Value::Null).is_empty());
}

#[test]
fn host_rule_3_elements_neither_come_nor_go_between_plan_and_state() {
    let with = |disks: Vec<Value>| object(&[("disks", Value::List(disks))]);
    let wanted = with(vec![disk("a", Value::UNKNOWN)]);
    assert!(applied(&schema(), &wanted, &with(vec![disk("a", "4Gi".into())])).is_empty());
    assert_eq!(places(&applied(&schema(), &wanted, &with(vec![]))), ["disks"]);
    let keys = |value: Vec<Value>| object(&[("keys", Value::List(value))]);
    assert!(applied(&schema(), &keys(vec![Value::UNKNOWN]), &keys(vec!["k".into()])).is_empty());
    assert_eq!(places(&applied(&schema(), &keys(vec!["j".into()]), &keys(vec!["k".into()]))), ["keys"]);
}

#[test]
fn host_rule_2_the_second_plan_may_only_learn() {
    let first = object(&[("name", "web".into()), ("id", Value::UNKNOWN)]);
    let second = object(&[("name", "web".into()), ("id", "7".into())]);
    assert!(replanned(&schema(), &first, &second).is_empty());
    assert_eq!(places(&replanned(&schema(), &second, &first)), ["id"]);
}

#[test]
fn host_rule_1_a_path_that_forces_replacement_exists_before_or_after() {
    let prior = object(&[("disks", Value::List(vec![disk("a", Value::Null)]))]);
    let path = |index| Path::of("disks").index(index).attribute("name");
    assert!(replaced(&prior, &object(&[]), &[path(0)]).is_empty());
    assert_eq!(places(&replaced(&prior, &object(&[]), &[path(1)])), ["disks[1].name"]);
    assert!(replaced(&prior, &object(&[("disks", Value::UNKNOWN)]), &[path(1)]).is_empty());
}

#[test]
fn a_report_never_holds_a_value() {
    let config = object(&[("name", "hunter2".into())]);
    let findings = planned(&schema(), &Value::Null, &config, &object(&[("name", "hunter3".into())]));
    let text = format!("{:?}", report(findings));
    assert!(text.contains("name: the plan is neither") && !text.contains("hunter"), "{text}");
}
