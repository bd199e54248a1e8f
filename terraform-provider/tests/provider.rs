//! The provider under the real Terraform.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod cli;

use cli::{Workspace, holdfast};

const PROVIDER: &str = holdfast_api::names::PROVIDER_SOURCE;

fn workspace() -> Workspace {
    let workspace = Workspace::with("holdfast", holdfast());
    workspace.configure("holdfast", "provider \"holdfast\" {\n  config_path = \"/nowhere\"\n}");
    workspace
}

#[test]
fn terraform_installs_the_provider_from_a_mirror_and_reads_its_schema() {
    let workspace = workspace();
    workspace.succeed(&["init", "-no-color"]);
    let schemas = workspace.succeed(&["providers", "schema", "-json"]);
    let schemas: serde_json::Value = serde_json::from_str(&schemas).unwrap();
    let attributes = &schemas["provider_schemas"][PROVIDER]["provider"]["block"]["attributes"];
    assert_eq!(attributes["token"]["sensitive"], true);
    assert_eq!(attributes["exec"]["nested_type"]["attributes"]["command"]["required"], true);
    assert!(workspace.succeed(&["validate", "-no-color"]).contains("The configuration is valid"));
}

/// A process that ends with its test, however that ends.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn terraform_uses_a_provider_under_debugging_without_installing_it() {
    let debugged = Command::new(holdfast()).arg("--debug").stdout(Stdio::piped()).spawn().unwrap();
    let mut debugged = Mortal(debugged);
    let mut line = String::new();
    BufReader::new(debugged.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (variable, value) = line.trim_end().split_once('=').unwrap();
    let workspace = workspace();
    for arguments in [&["init", "-no-color"][..], &["providers", "schema", "-json"], &["plan", "-no-color"]] {
        let output = workspace.command(arguments).env(variable, value.trim_matches('\'')).output().unwrap();
        assert!(output.status.success(), "{}", cli::text(&output));
    }
    assert!(!workspace.work().join(".terraform.lock.hcl").exists(), "it was installed");
    assert!(debugged.0.try_wait().unwrap().is_none(), "the host ended a process that is not its own");
    kill(Pid::from_raw(i32::try_from(debugged.0.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(debugged.0.wait().unwrap().success());
}

/// The folders whose files people copy: those on the pages of the documentation, and whole configurations.
fn examples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parents = ["examples/resources", "examples/data-sources", "../examples/terraform"];
    let listed = parents.map(|parent| fs::read_dir(root.join(parent)).unwrap());
    let listed = listed.into_iter().flatten().map(|entry| entry.unwrap().path());
    listed.chain([root.join("examples/provider")]).collect()
}

#[test]
fn every_example_is_valid() {
    // One workspace for all, since each `init` takes seconds and they want the same provider.
    let workspace = Workspace::with("holdfast", holdfast());
    workspace.configure("holdfast", "");
    workspace.succeed(&["init"]);
    for folder in examples() {
        clear(&workspace.work());
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let named = |path: &&PathBuf| path.extension().is_some_and(|it| it == "tf");
        let texts: Vec<_> =
            files.iter().filter(named).map(|path| fs::read_to_string(path).unwrap()).collect();
        if !texts.iter().any(|text| text.contains("required_providers")) {
            workspace.configure("holdfast", "");
        }
        // What somebody left who tried it begins with a dot or is a state.
        for file in files.iter().filter(|path| path.is_file()) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with('.') && !name.starts_with("terraform.tf") {
                fs::copy(file, workspace.work().join(name)).unwrap();
            }
        }
        let said = workspace.succeed(&["validate", "-no-color"]);
        assert!(said.contains("The configuration is valid"), "{}: {said}", folder.display());
    }
}

/// Leaves of a configuration only what `init` wrote, whose names begin with a dot.
fn clear(work: &Path) {
    for entry in fs::read_dir(work).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn what_packs_itself_can_be_installed_and_is_locked_by_the_hash_it_lists() {
    let workspace = workspace();
    let mirror = workspace.work().with_file_name("mirror");
    fs::remove_dir_all(&mirror).unwrap();
    let packed = Command::new(holdfast()).args(["mirror", "--dir"]).arg(&mirror).status().unwrap();
    assert!(packed.success());
    let version = format!("{}.json", env!("CARGO_PKG_VERSION"));
    let listed = fs::read_to_string(mirror.join(PROVIDER).join(version)).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let (platform, archive) = listed["archives"].as_object().unwrap().iter().next().unwrap();

    workspace.succeed(&["init"]);
    let lock = workspace.work().join(".terraform.lock.hcl");
    let locked = fs::read_to_string(&lock).unwrap();
    assert!(locked.contains(&archive["hashes"][0].to_string()), "{locked}");
    let mirror = format!("-fs-mirror={}", mirror.display());
    workspace.succeed(&["providers", "lock", &mirror, &format!("-platform={platform}")]);
    assert_eq!(fs::read_to_string(&lock).unwrap(), locked);
}

/// An attribute: who decides it, where it is seen, and its path, such as `Optional, Sensitive: exec.env`.
fn told(group: &str, exposure: &str, path: &str) -> String {
    format!("{group}{exposure}: {path}")
}

/// The attributes that a host sees.
fn served(attributes: &serde_json::Value, at: &str, all: &mut BTreeSet<String>) {
    for (name, attribute) in attributes.as_object().into_iter().flatten() {
        let is = |word: &str| attribute[word] == true;
        let group = match (is("required"), is("optional")) {
            (true, _) => "Required",
            (_, true) => "Optional",
            _ => "Read-Only",
        };
        let exposure = match (is("write_only"), is("sensitive")) {
            (true, _) => ", Write-only",
            (_, true) => ", Sensitive",
            _ => "",
        };
        all.insert(told(group, exposure, &format!("{at}{name}")));
        served(&attribute["nested_type"]["attributes"], &format!("{at}{name}."), all);
    }
}

/// The attributes that a page has.
fn documented(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let (_, reference) = text.split_once("\n## Schema\n").unwrap();
    let (mut group, mut at, mut all) = (String::new(), String::new(), BTreeSet::new());
    for line in reference.lines().take_while(|line| !line.starts_with("## ")) {
        if let Some(path) = line.strip_prefix("### Nested Schema for `") {
            at = format!("{}.", path.trim_end_matches('`'));
        } else if let Some(heading) = line.strip_prefix("### ").or_else(|| line.strip_suffix(':')) {
            heading.clone_into(&mut group);
        } else if let Some((name, rest)) = line.strip_prefix("- `").and_then(|it| it.split_once("` (")) {
            let kind = rest.split(')').next().unwrap();
            let exposure = kind.find(", ").map_or("", |index| &kind[index..]);
            assert!(all.insert(told(&group, exposure, &format!("{at}{name}"))), "{name} is there twice");
        }
    }
    all
}

#[test]
fn the_pages_have_the_attributes_that_a_host_sees_and_no_other() {
    let workspace = workspace();
    workspace.succeed(&["init", "-no-color"]);
    let schemas = workspace.succeed(&["providers", "schema", "-json"]);
    let schemas: serde_json::Value = serde_json::from_str(&schemas).unwrap();
    let schemas = &schemas["provider_schemas"][PROVIDER];
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let compare = |page: &Path, schema: &serde_json::Value| {
        let mut expected = BTreeSet::new();
        served(&schema["block"]["attributes"], "", &mut expected);
        assert!(!expected.is_empty() && schema["block"]["block_types"].is_null(), "{}", page.display());
        assert_eq!(documented(page), expected, "{}", page.display());
    };
    compare(&docs.join("index.md"), &schemas["provider"]);
    for (folder, schemas) in
        [("resources", &schemas["resource_schemas"]), ("data-sources", &schemas["data_source_schemas"])]
    {
        let page = |name: &String| format!("{}.md", name.trim_start_matches("holdfast_"));
        let schemas = schemas.as_object().unwrap();
        let pages = fs::read_dir(docs.join(folder)).unwrap();
        let pages: BTreeSet<_> = pages.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(pages, schemas.keys().map(page).collect(), "{folder}");
        for (name, schema) in schemas {
            compare(&docs.join(folder).join(page(name)), schema);
        }
    }
}
