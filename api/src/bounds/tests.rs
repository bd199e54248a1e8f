//! The generated kinds, walked field by field.

use serde_json::Value;

use super::cut;

/// Says of each field below this schema what it lacks to be bounded.
fn walk(schema: &Value, at: &str, lacking: &mut Vec<String>) {
    let lacks = |word: &str| schema[word].is_null();
    let free = "x-kubernetes-preserve-unknown-fields";
    match schema["type"].as_str() {
        Some("string") if lacks("maxLength") && lacks("enum") => lacking.push(format!("{at}: maxLength")),
        Some("array") => {
            if lacks("maxItems") {
                lacking.push(format!("{at}: maxItems"));
            }
            walk(&schema["items"], &format!("{at}[]"), lacking);
        }
        Some("object") => object(schema, at, lacking),
        Some("string" | "integer" | "boolean") if lacks(free) => {}
        _ => lacking.push(format!("{at}: a type")),
    }
}

/// Its fields, or the keys and values of a map.
fn object(schema: &Value, at: &str, lacking: &mut Vec<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        walk(schema, &format!("{at}.{name}"), lacking);
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        lacking.push(format!("{at}: known fields"));
    }
    let values = &schema["additionalProperties"];
    if values.is_null() {
        return;
    }
    walk(values, &format!("{at}[]"), lacking);
    if schema["maxProperties"].is_null() {
        lacking.push(format!("{at}: maxProperties"));
    }
    let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
    let keys = |rule: &Value| {
        rule["rule"].as_str().is_some_and(|rule| rule.starts_with("self.all(key, key.size() <= "))
    };
    if !rules.iter().any(keys) {
        lacking.push(format!("{at}: a rule for the length of its keys"));
    }
}

fn unbounded(schema: &Value, at: &str) -> Vec<String> {
    let mut lacking = Vec::new();
    walk(schema, at, &mut lacking);
    lacking
}

#[test]
fn every_string_list_and_map_of_the_generated_kinds_has_a_bound_in_the_schema() {
    for crd in crate::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            assert!(schema["properties"]["status"].is_object(), "{kind} has no status to walk");
            assert_eq!(unbounded(schema, &kind), Vec::<String>::new());
        }
    }
}

#[test]
fn a_field_without_a_bound_is_found_wherever_it_stands() {
    let map = serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}});
    let list =
        serde_json::json!({"type": "array", "items": {"type": "object", "properties": {"m": map, "n": {}}}});
    let found = unbounded(&list, "x").join("\n");
    for expected in
        ["x: maxItems", "x[].m: maxProperties", "x[].m: a rule", "x[].m[]: maxLength", "x[].n: a type"]
    {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn a_text_is_cut_between_characters_and_says_so() {
    assert_eq!(cut("äöü".to_owned(), 3), "äöü");
    assert_eq!(cut("äöüäö".to_owned(), 4), "ä...");
    assert_eq!(cut("abc".to_owned(), 0), "...");
}
