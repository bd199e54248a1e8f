//! A provider of notes, kept as files in a directory: the smallest whole use of the kit, and what its tests drive with
//! the real CLIs. Each rule a resource must keep is here once:
//!
//! - `text` has a static default, known at plan; `number` of a page is allocated, and copied from the prior state;
//! - `title` cannot change in place; `secret_wo` is in no plan and no state;
//! - an interrupted create returns what exists.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use holdfast_provider::plugin::codec::Mismatch;
use holdfast_provider::plugin::diagnostic::{Diagnostic, Diagnostics};
use holdfast_provider::plugin::fields::Fields;
use holdfast_provider::plugin::json::{self, Attributes};
use holdfast_provider::plugin::known::Known;
use holdfast_provider::plugin::path::Path;
use holdfast_provider::plugin::provider::{
    AnyDataSource, AnyResource, Call, DataSource, FromFields, Host, Model, Outcome, Plan, Provider, Resource,
    async_trait,
};
use holdfast_provider::plugin::schema::{Attribute, Owner, Problem, Schema, Shape};
use holdfast_provider::plugin::ty::Type;
use holdfast_provider::plugin::value::Value;
use holdfast_provider::plugin::{any, log, serve};

struct Notes;

struct NoteResource;

struct NoteSource;

/// Where the notes lie; unknown while another resource has to make the directory.
struct Directory(Known<PathBuf>);

#[derive(Clone, PartialEq, Eq)]
struct Note {
    id: Known<String>,
    title: Known<String>,
    text: Known<String>,
    tags: Known<Vec<Known<String>>>,
    pages: Known<Vec<Known<Page>>>,
    secret_wo: Known<String>,
    secret_wo_version: Known<i64>,
    slow: Known<bool>,
}

#[derive(Clone, PartialEq, Eq)]
struct Page {
    name: Known<String>,
    number: Known<i64>,
}

impl Provider for Notes {
    type Client = Directory;
    type Config = Directory;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let directory = Attribute::required("directory", Type::String, "Where the notes lie.");
        Schema::new(Owner::Provider, "Notes as files.", vec![directory])
    }

    fn resources(&self) -> Vec<Box<dyn AnyResource<Directory>>> {
        vec![Box::new(NoteResource)]
    }

    fn data_sources(&self) -> Vec<Box<dyn AnyDataSource<Directory>>> {
        vec![Box::new(NoteSource)]
    }

    fn validate(&self, _: &Directory, _: &mut Diagnostics) {}

    fn configure(&self, config: Directory, _: &Host) -> Result<Directory, Diagnostics> {
        Ok(config)
    }
}

#[async_trait]
impl Resource for NoteResource {
    type Client = Directory;
    type Model = Note;

    fn name(&self) -> &'static str {
        "note"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        Schema::new(Owner::Resource, "A note.", attributes())
    }

    fn validate(&self, config: &Note, diagnostics: &mut Diagnostics) {
        if config.title.as_value().is_some_and(|title| title.contains('/')) {
            let detail = "A title is the name of a file and has no slash. Use another sign.";
            diagnostics.error(Path::of("title"), "Title has a slash", detail);
        }
    }

    fn plan(&self, _: &Directory, prior: Option<&Note>, config: &Note) -> Plan<Note> {
        let mut planned = config.clone();
        planned.id = prior.map_or(Known::Unknown, |prior| prior.id.clone());
        planned.text = planned.text.or_value("nothing yet".to_owned());
        if let Known::Value(pages) = &mut planned.pages {
            for page in pages {
                number(page, prior);
            }
        }
        Plan::of(planned).replacing([Path::of("title")])
    }

    fn import(&self, id: &str) -> Result<Note, Diagnostics> {
        let id = id.to_owned();
        Ok(Note { title: Known::Value(id.clone()), id: Known::Value(id), ..Note::empty() })
    }

    async fn create(&self, call: Call<'_, Directory>, config: Note, planned: Note) -> Outcome<Note> {
        let secret = config.secret_wo.value().unwrap_or_default();
        let note = planned.numbered();
        if let Err(problem) = call.client.write(&note, &secret) {
            return Outcome::failed(problem);
        }
        if note.slow == Known::Value(true) && interrupted(&call).await {
            let detail = "The note exists; apply again to go on.";
            let interrupted = Diagnostic::error(Path::root(), "Interrupted", detail);
            return Outcome::exists(note).with(interrupted.into());
        }
        Outcome::exists(note).with_private(b"{\"v\":1}".to_vec())
    }

    async fn read(&self, call: Call<'_, Directory>, state: Note) -> Outcome<Note> {
        match call.client.read(&state.title) {
            Ok(Some(note)) => Outcome::exists(note),
            Ok(None) => Outcome::gone(),
            Err(problem) => Outcome::failed(problem),
        }
    }

    async fn update(&self, call: Call<'_, Directory>, _: Note, config: Note, planned: Note) -> Outcome<Note> {
        self.create(call, config, planned).await
    }

    async fn delete(&self, call: Call<'_, Directory>, prior: Note) -> Outcome<Note> {
        match call.client.remove(&prior.title) {
            Ok(()) => Outcome::gone(),
            Err(problem) => Outcome::failed(problem),
        }
    }
}

#[async_trait]
impl DataSource for NoteSource {
    type Client = Directory;
    type Model = Note;

    fn name(&self) -> &'static str {
        "note"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let computed = |attribute: Attribute| match attribute.name.as_str() {
            "title" => attribute,
            name => Attribute::computed(name, attribute.ty(), attribute.description.clone()),
        };
        Schema::new(
            Owner::DataSource,
            "A note that is there.",
            attributes().into_iter().map(computed).collect(),
        )
    }

    async fn read(&self, call: Call<'_, Directory>, config: Note) -> Outcome<Note> {
        match call.client.read(&config.title) {
            Ok(Some(note)) => Outcome::exists(note),
            Ok(None) => {
                let detail = "No note has this title. Create it first.";
                Outcome::failed(Diagnostic::error(Path::of("title"), "Note not found", detail).into())
            }
            Err(problem) => Outcome::failed(problem),
        }
    }
}

/// Whether somebody interrupted before the work was done.
async fn interrupted(call: &Call<'_, Directory>) -> bool {
    tokio::time::timeout(Duration::from_secs(60), call.cancel.cancelled()).await.is_ok()
}

/// The number of a page: that of the prior page of the same name, wherever it stood.
fn number(page: &mut Known<Page>, prior: Option<&Note>) {
    let Known::Value(page) = page else { return };
    let pages = prior.and_then(|prior| prior.pages.as_value()).into_iter().flatten();
    let same = pages.filter_map(Known::as_value).find(|it| it.name == page.name);
    page.number = same.map_or(Known::Unknown, |it| it.number);
}

fn attributes() -> Vec<Attribute> {
    let page = vec![
        Attribute::required("name", Type::String, "What it is called."),
        Attribute::computed("number", Type::Number, "Its number, given when it is written."),
    ];
    vec![
        Attribute::computed("id", Type::String, "Identifier: the title."),
        Attribute::required("title", Type::String, "Name of the file. A change replaces the note."),
        Attribute::optional_computed("text", Type::String, "What it says; default `nothing yet`."),
        Attribute::optional("tags", Type::set(Type::String), "Words to find it by."),
        Attribute::optional("pages", Shape::list(page), "Pages in their order."),
        Attribute::optional("secret_wo", Type::String, "A secret beside the note.").write_only(),
        Attribute::optional("secret_wo_version", Type::Number, "A change writes the secret anew."),
        Attribute::optional("slow", Type::Bool, "Take a minute; default false."),
    ]
}

impl Note {
    fn empty() -> Self {
        Self {
            id: Known::Null,
            title: Known::Null,
            text: Known::Null,
            tags: Known::Null,
            pages: Known::Null,
            secret_wo: Known::Null,
            secret_wo_version: Known::Null,
            slow: Known::Null,
        }
    }

    /// With what is decided only now.
    fn numbered(mut self) -> Self {
        self.id = self.title.clone();
        if let Known::Value(pages) = &mut self.pages {
            let taken = pages.iter().filter_map(Known::as_value).filter_map(|page| page.number.value()).max();
            let mut next = taken.unwrap_or(0);
            for page in pages {
                if let Known::Value(page @ Page { number: Known::Unknown, .. }) = page {
                    next += 1;
                    page.number = Known::Value(next);
                }
            }
        }
        self
    }
}

impl Directory {
    fn file(&self, title: &Known<String>, ending: &str) -> Result<PathBuf, Diagnostics> {
        let Known::Value(directory) = &self.0 else {
            let detail = "The provider's directory is not known yet. Apply what makes it first.";
            return Err(Diagnostic::error(Path::root(), "Directory is unknown", detail).into());
        };
        Ok(directory.join(format!("{}.{ending}", title.as_value().map_or("", String::as_str))))
    }

    fn write(&self, note: &Note, secret: &str) -> Result<(), Diagnostics> {
        let value = Note { secret_wo: Known::Null, ..note.clone() }.into_value();
        let text = json::encode(&value).map_err(|mismatch| broken(&mismatch))?;
        std::fs::write(self.file(&note.title, "json")?, text.to_string()).map_err(|error| failed(&error))?;
        std::fs::write(self.file(&note.title, "secret")?, secret).map_err(|error| failed(&error))
    }

    fn read(&self, title: &Known<String>) -> Result<Option<Note>, Diagnostics> {
        let text = match std::fs::read(self.file(title, "json")?) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| failed(&error))?,
        };
        let ty = Type::Object(
            attributes().iter().map(|it| (it.name.clone(), it.ty())).collect::<BTreeMap<_, _>>(),
        );
        let value = json::parse(&text).and_then(|parsed| json::typed(&parsed, &ty, Attributes::Lenient));
        any::parse(&value.map_err(|mismatch| broken(&mismatch))?).map(Some)
    }

    fn remove(&self, title: &Known<String>) -> Result<(), Diagnostics> {
        std::fs::remove_file(self.file(title, "json")?).map_err(|error| failed(&error))?;
        std::fs::remove_file(self.file(title, "secret")?).map_err(|error| failed(&error))
    }
}

fn failed(error: &std::io::Error) -> Diagnostics {
    Diagnostic::error(Path::root(), "File operation failed", format!("{error}. Look at the directory."))
        .into()
}

fn broken(mismatch: &Mismatch) -> Diagnostics {
    Diagnostic::error(mismatch.path().clone(), "Note cannot be read", mismatch.to_string()).into()
}

impl FromFields for Directory {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self(fields.string("directory").map(PathBuf::from))
    }
}

impl FromFields for Note {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            id: fields.string("id"),
            title: fields.string("title"),
            text: fields.string("text"),
            tags: fields.strings("tags"),
            pages: fields.nested_list("pages", |page| Page {
                name: page.string("name"),
                number: page.integer("number"),
            }),
            secret_wo: fields.string("secret_wo"),
            secret_wo_version: fields.integer("secret_wo_version"),
            slow: fields.boolean("slow"),
        }
    }
}

impl Model for Note {
    fn into_value(self) -> Value {
        let Self { id, title, text, tags, pages, secret_wo, secret_wo_version, slow } = self;
        Value::object([
            ("id", id.into()),
            ("title", title.into()),
            ("text", text.into()),
            ("tags", tags.into()),
            ("pages", pages.into()),
            ("secret_wo", secret_wo.into()),
            ("secret_wo_version", secret_wo_version.into()),
            ("slow", slow.into()),
        ])
    }
}

impl From<Page> for Value {
    fn from(Page { name, number }: Page) -> Self {
        Self::object([("name", name.into()), ("number", number.into())])
    }
}

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    log::start(variable);
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    else {
        return ExitCode::FAILURE;
    };
    let served = runtime.block_on(serve::plugin(Notes, variable));
    runtime.shutdown_background();
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
