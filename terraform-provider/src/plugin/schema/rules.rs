//! What the host refuses in a schema (`terraform:internal/configs/configschema/internal_validate.go`), and what we do.

use super::{Attribute, Exposure, Presence, Shape};
use crate::plugin::path::Path;
use crate::plugin::ty::Type;

/// Whose schema it is: the language takes some names for itself, others for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The provider's own configuration.
    Provider,
    /// A resource.
    Resource,
    /// A data source.
    DataSource,
}

/// Why a schema cannot be served. It is a mistake in our source, never in a user's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attribute {at} {rule}")]
pub struct Problem {
    at: Path,
    rule: &'static str,
}

const RESOURCE_WORDS: [&str; 8] =
    ["count", "for_each", "provider", "depends_on", "lifecycle", "connection", "provisioner", "locals"];
const PROVIDER_WORDS: [&str; 6] = ["alias", "version", "source", "count", "for_each", "depends_on"];

impl Owner {
    const fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Provider => &PROVIDER_WORDS,
            Self::Resource | Self::DataSource => &RESOURCE_WORDS,
        }
    }
}

/// Checks the attributes of a whole schema.
pub(super) fn check(owner: Owner, attributes: &[Attribute]) -> Result<(), Problem> {
    let reserved = attributes.iter().find(|it| owner.reserved().contains(&it.name.as_str()));
    if let Some(attribute) = reserved {
        return Err(Problem {
            at: Path::of(&attribute.name),
            rule: "has a name the language takes for itself",
        });
    }
    each(owner, attributes, &Path::root())
}

fn each(owner: Owner, attributes: &[Attribute], at: &Path) -> Result<(), Problem> {
    for (position, attribute) in attributes.iter().enumerate() {
        let at = at.attribute(&attribute.name);
        let twice = attributes[..position].iter().any(|earlier| earlier.name == attribute.name);
        let broken = if twice { Some("stands there twice") } else { broken_rule(owner, attribute) };
        if let Some(rule) = broken {
            return Err(Problem { at, rule });
        }
        if let Shape::Nested(_, inner) = &attribute.shape {
            each(owner, inner, &at)?;
        }
    }
    Ok(())
}

fn broken_rule(owner: Owner, attribute: &Attribute) -> Option<&'static str> {
    let write_only = attribute.exposure == Exposure::WriteOnly;
    let rules = [
        (!is_name(&attribute.name), "needs a name of lower-case letters, digits and underscores"),
        (attribute.description.is_empty(), "has no description"),
        (write_only && attribute.is_computed(), "is write-only, so nothing can be computed for it"),
        (write_only && owner != Owner::Resource, "is write-only, which only a resource can have"),
        (has_other_set(&attribute.shape), "has a set of something else than strings"),
        (
            owner == Owner::Provider
                && attribute.presence != Presence::Optional
                && attribute.presence != Presence::Required,
            "is computed, which nothing does for a provider's configuration",
        ),
    ];
    rules.into_iter().find_map(|(broken, rule)| broken.then_some(rule))
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    starts && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// An element of any other set has no path, so no message could point at it.
fn has_other_set(shape: &Shape) -> bool {
    fn inside(ty: &Type) -> bool {
        match ty {
            Type::Bool | Type::Number | Type::String => false,
            Type::Set(element) => **element != Type::String,
            Type::List(element) | Type::Map(element) => inside(element),
            Type::Object(attributes) => attributes.values().any(inside),
        }
    }
    matches!(shape, Shape::Plain(ty) if inside(ty))
}
