//! The reference of a page: every attribute by who decides it, nested objects each in a section of its own.

use std::fmt::Write as _;

use crate::plugin::schema::{Attribute, Exposure, Nesting, Presence, Schema, Shape};
use crate::plugin::ty::Type;

/// Who decides, as headings; an attribute with a default stands among those that may be set.
const GROUPS: [(&str, &[Presence]); 3] = [
    ("Required", &[Presence::Required]),
    ("Optional", &[Presence::Optional, Presence::OptionalComputed]),
    ("Read-Only", &[Presence::Computed]),
];

/// The reference of a schema.
pub(super) fn of(schema: &Schema) -> String {
    let mut text = "## Schema\n".to_owned();
    for (heading, attributes) in groups(schema.attributes()) {
        let _ = write!(text, "\n### {heading}\n\n");
        lines(&attributes, "", &mut text);
    }
    nested(schema.attributes(), "", &mut text);
    text
}

/// The sections of the objects in these attributes, each followed by those inside it.
fn nested(attributes: &[Attribute], at: &str, text: &mut String) {
    for attribute in attributes {
        let Shape::Nested(_, inner) = &attribute.shape else { continue };
        let at = below(at, attribute);
        let _ = write!(text, "\n<a id=\"{}\"></a>\n### Nested Schema for `{at}`\n", anchor(&at));
        for (heading, attributes) in groups(inner) {
            let _ = write!(text, "\n{heading}:\n\n");
            lines(&attributes, &at, text);
        }
        nested(inner, &at, text);
    }
}

fn groups(attributes: &[Attribute]) -> impl Iterator<Item = (&'static str, Vec<&Attribute>)> {
    let of = |presences: &[Presence]| {
        attributes.iter().filter(|it| presences.contains(&it.presence)).collect::<Vec<_>>()
    };
    let groups = GROUPS.map(|(heading, presences)| (heading, of(presences)));
    groups.into_iter().filter(|(_, attributes)| !attributes.is_empty())
}

fn lines(attributes: &[&Attribute], at: &str, text: &mut String) {
    for attribute in attributes {
        let Attribute { name, shape, presence: _, exposure, description, deprecation } = attribute;
        let exposure = match exposure {
            Exposure::Open => "",
            Exposure::Sensitive => ", Sensitive",
            Exposure::WriteOnly => ", Write-only",
        };
        let below = match shape {
            Shape::Nested(..) => {
                format!(" (see [below for nested schema](#{}))", anchor(&below(at, attribute)))
            }
            Shape::Plain(_) => String::new(),
        };
        let instead = deprecation.as_ref().map_or_else(String::new, |it| format!(" **Deprecated:** {it}"));
        let description = escaped(description);
        let _ = writeln!(text, "- `{name}` ({}{exposure}) {description}{instead}{below}", kind(shape));
    }
}

/// Outside of code, `<` would begin a tag.
fn escaped(description: &str) -> String {
    let parts = description.split('`').enumerate();
    let parts =
        parts.map(|(index, part)| if index % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

fn below(at: &str, attribute: &Attribute) -> String {
    if at.is_empty() { attribute.name.clone() } else { format!("{at}.{}", attribute.name) }
}

fn anchor(at: &str) -> String {
    format!("nestedatt--{}", at.replace('.', "--"))
}

fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Plain(ty) => plain(ty),
        Shape::Nested(Nesting::Single, _) => "Attributes".to_owned(),
        Shape::Nested(Nesting::List, _) => "Attributes List".to_owned(),
        Shape::Nested(Nesting::Map, _) => "Attributes Map".to_owned(),
    }
}

fn plain(ty: &Type) -> String {
    match ty {
        Type::Bool => "Boolean".to_owned(),
        Type::Number => "Number".to_owned(),
        Type::String => "String".to_owned(),
        Type::List(element) => format!("List of {}", plain(element)),
        Type::Set(element) => format!("Set of {}", plain(element)),
        Type::Map(element) => format!("Map of {}", plain(element)),
        Type::Object(_) => "Object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::schema::Owner;

    #[test]
    fn only_code_may_hold_an_angle_bracket() {
        assert_eq!(escaped("virtio-<name>, `a<b`, <c>"), "virtio-&lt;name>, `a<b`, &lt;c>");
    }

    #[test]
    fn attributes_stand_under_who_decides_them_and_objects_in_a_section_of_their_own() {
        let inner = vec![
            Attribute::required("name", Type::String, "Its name."),
            Attribute::optional("key", Type::String, "Its key.").write_only(),
        ];
        let attributes = vec![
            Attribute::computed("id", Type::String, "Its id."),
            Attribute::optional_computed("size", Type::Number, "Its size; default 1."),
            Attribute::optional("disks", Shape::list(inner), "Its disks."),
            Attribute::required("tags", Type::map(Type::list(Type::String)), "Its tags."),
        ];
        let schema = Schema::new(Owner::Resource, "A thing.", attributes).unwrap();
        let expected = "\
## Schema

### Required

- `tags` (Map of List of String) Its tags.

### Optional

- `size` (Number) Its size; default 1.
- `disks` (Attributes List) Its disks. (see [below for nested schema](#nestedatt--disks))

### Read-Only

- `id` (String) Its id.

<a id=\"nestedatt--disks\"></a>
### Nested Schema for `disks`

Required:

- `name` (String) Its name.

Optional:

- `key` (String, Write-only) Its key.
";
        assert_eq!(of(&schema), expected);
    }
}
