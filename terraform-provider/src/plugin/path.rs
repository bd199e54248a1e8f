//! Paths: where in a value something is. A diagnostic with one is shown beside the line of the configuration it means.

use std::fmt;

/// The way from a value's root to one of its parts.
///
/// An element of a set has no step of its own, on the wire neither: such a path ends at the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into an attribute of an object.
    Attribute(String),
    /// Into an element of a map.
    Key(String),
    /// Into an element of a list.
    Index(usize),
}

impl Path {
    /// The whole value.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The attribute of that name, at the root.
    pub fn of(name: impl Into<String>) -> Self {
        Self::root().attribute(name)
    }

    /// One step further, into an attribute.
    #[must_use]
    pub fn attribute(&self, name: impl Into<String>) -> Self {
        self.join(Step::Attribute(name.into()))
    }

    /// One step further, into an element of a map.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.join(Step::Key(key.into()))
    }

    /// One step further, into an element of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.join(Step::Index(index))
    }

    /// The same path seen from one step further out.
    #[must_use]
    pub fn inside(mut self, outer: Step) -> Self {
        self.0.insert(0, outer);
        self
    }

    /// The steps, from the root on.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether this is the whole value.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    fn join(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

/// As a user would write it: `disks[0].name`, `labels["app"]`.
impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Attribute(name) if position == 0 => write!(out, "{name}")?,
                Step::Attribute(name) => write!(out, ".{name}")?,
                Step::Key(key) => write!(out, "[{key:?}]")?,
                Step::Index(index) => write!(out, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_is_written_in_a_configuration() {
        let path = Path::of("disks").index(0).attribute("labels").key("a b");
        assert_eq!(path.to_string(), r#"disks[0].labels["a b"]"#);
        assert!(Path::root().is_root());
        assert_eq!(Path::root().to_string(), "");
    }
}
