//! Documentation of a provider, in the layout that registries read: `index.md`, `resources/` and `data-sources/`.
//!
//! Pages are made of what the host is told anyway (the schemas), of what a resource adds (`Resource::notes`), and of
//! example files, which are put in as they are so that tests can run what readers copy. Called by `main`.
//!
//! ```text
//! examples/provider/provider.tf                  examples/resources/<name>/resource.tf, import.sh
//!                                                examples/data-sources/<name>/data-source.tf
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::provider::Provider;
use super::schema::{Problem, Schema};

mod reference;

/// Why there is no documentation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An example is missing.
    #[error("could not read the example {path}: every page shows one, so write it")]
    Example {
        /// Where it should be.
        path: PathBuf,
        /// What was found there.
        source: io::Error,
    },
    /// A page cannot be stored.
    #[error("could not write {path}")]
    Page {
        /// Where it belongs.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A schema could not be served either.
    #[error("a schema is not right")]
    Schema(#[from] Problem),
}

/// A page: its path below the folder of the documentation, and its text.
pub type Page = (PathBuf, String);

/// Writes all pages into a folder. Other files there are left alone.
pub fn write(pages: &[Page], folder: &Path) -> Result<(), Error> {
    for (path, text) in pages {
        let path = folder.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|source| Error::Page { path, source })?;
    }
    Ok(())
}

/// All pages, with examples from that folder.
pub fn pages(provider: &impl Provider, examples: &Path) -> Result<Vec<Page>, Error> {
    let name = provider.name();
    let example = |path: PathBuf| {
        let path = examples.join(path);
        fs::read_to_string(&path).map_err(|source| Error::Example { path, source })
    };
    let index = Parts {
        title: format!("{name} Provider"),
        heading: format!("{name} Provider"),
        schema: provider.schema()?,
        example: example("provider/provider.tf".into())?,
        notes: String::new(),
        import: None,
    };
    let mut pages = vec![("index.md".into(), index.page())];
    for resource in provider.resources() {
        let kind = format!("{name}_{}", resource.kind());
        let folder = Path::new("resources").join(&kind);
        let parts = Parts {
            title: format!("{kind} Resource - {name}"),
            heading: format!("{kind} (Resource)"),
            schema: resource.attributes()?,
            example: example(folder.join("resource.tf"))?,
            notes: resource.remarks(),
            import: Some(example(folder.join("import.sh"))?),
        };
        pages.push((format!("resources/{}.md", resource.kind()).into(), parts.page()));
    }
    for source in provider.data_sources() {
        let kind = format!("{name}_{}", source.kind());
        let parts = Parts {
            title: format!("{kind} Data Source - {name}"),
            heading: format!("{kind} (Data Source)"),
            schema: source.attributes()?,
            example: example(Path::new("data-sources").join(&kind).join("data-source.tf"))?,
            notes: String::new(),
            import: None,
        };
        pages.push((format!("data-sources/{}.md", source.kind()).into(), parts.page()));
    }
    Ok(pages)
}

/// What a page is made of.
struct Parts {
    title: String,
    heading: String,
    schema: Schema,
    example: String,
    notes: String,
    import: Option<String>,
}

impl Parts {
    fn page(&self) -> String {
        let Self { title, heading, schema, example, notes, import } = self;
        let about = schema.description();
        let notes = if notes.is_empty() { String::new() } else { format!("{}\n\n", notes.trim_end()) };
        let import = import.as_ref().map_or_else(String::new, |import| {
            format!("\n## Import\n\n```shell\n{}\n```\n", import.trim_end())
        });
        format!(
            "---\npage_title: \"{title}\"\nsubcategory: \"\"\ndescription: |-\n  {about}\n---\n\n\
             <!-- Written by `make generate` from the provider's schema; do not edit. -->\n\n\
             # {heading}\n\n{about}\n\n\
             ## Example Usage\n\n```terraform\n{}\n```\n\n\
             {notes}{}{import}",
            example.trim_end(),
            reference::of(schema),
        )
    }
}
