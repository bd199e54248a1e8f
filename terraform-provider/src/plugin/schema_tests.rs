use super::*;

fn problem(owner: Owner, attribute: Attribute) -> String {
    Schema::new(owner, "", vec![attribute]).unwrap_err().to_string()
}

#[test]
fn what_the_host_would_refuse_is_refused_when_the_schema_is_built() {
    let text = || Attribute::optional("name", Type::String, "Name.");
    let cases = [
        (Owner::Resource, Attribute::optional("Name", Type::String, "x"), "lower-case"),
        (Owner::Resource, Attribute::optional("count", Type::Number, "x"), "takes for itself"),
        (Owner::Provider, Attribute::optional("alias", Type::String, "x"), "takes for itself"),
        (Owner::Provider, Attribute::computed("id", Type::String, "x"), "is computed"),
        (Owner::Resource, Attribute::optional("name", Type::String, ""), "no description"),
        (Owner::Resource, Attribute::computed("secret", Type::String, "x").write_only(), "write-only"),
        (Owner::DataSource, text().write_only(), "only a resource"),
        (Owner::Resource, Attribute::optional("sizes", Type::set(Type::Number), "x"), "a set of something"),
        (Owner::Resource, Attribute::optional("disk", Shape::single(vec![text(), text()]), "x"), "twice"),
    ];
    for (owner, attribute, expected) in cases {
        let problem = problem(owner, attribute);
        assert!(problem.contains(expected), "{problem}");
    }
    assert!(Schema::new(Owner::Resource, "", vec![Attribute::optional("source", Type::String, "x")]).is_ok());
}

#[test]
fn a_problem_names_the_nested_attribute() {
    let inner = Attribute::optional("size", Type::Number, "");
    let disks = Attribute::optional("disks", Shape::list(vec![inner]), "Disks.");
    assert_eq!(problem(Owner::Resource, disks), "the attribute disks.size has no description");
}

#[test]
fn write_only_attributes_are_found_and_taken_out_wherever_they_nest() {
    let secret = || Attribute::optional("secret", Type::String, "Secret.").write_only();
    let disks = Attribute::optional("disks", Shape::list(vec![secret()]), "Disks.");
    let schema = Schema::new(Owner::Resource, "", vec![secret(), disks]).unwrap();
    let value = Value::object([
        ("secret", "s".into()),
        ("disks", Value::List(vec![Value::object([("secret", "t".into())]), Value::UNKNOWN])),
    ]);
    let paths = [Path::of("secret"), Path::of("disks").index(0).attribute("secret")];
    assert_eq!(schema.write_only_set(&value), paths);
    assert!(schema.write_only_set(&schema.without_write_only(value)).is_empty());
}

#[test]
fn nested_attributes_give_the_type_of_the_whole() {
    let name = Attribute::required("name", Type::String, "Name.");
    let disks = Attribute::optional("disks", Shape::list(vec![name]), "Disks.");
    let ty = Schema::new(Owner::Resource, "", vec![disks]).unwrap().ty();
    assert_eq!(ty.to_json().to_string(), r#"["object",{"disks":["list",["object",{"name":"string"}]]}]"#);
}
