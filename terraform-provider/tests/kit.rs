//! The kit under the real Terraform, by way of `examples/notes.rs`: every phase of a resource's life.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in helpers of tests too")]

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

mod cli;
mod host;

use cli::Workspace;

struct Notes {
    workspace: Workspace,
    directory: TempDir,
}

impl Notes {
    fn new(note: &str) -> Self {
        let workspace = Workspace::with("notes", &host::example("notes"));
        let notes = Self { workspace, directory: tempfile::tempdir().unwrap() };
        notes.configure(note);
        notes.workspace.succeed(&["init", "-no-color"]);
        notes
    }

    fn configure(&self, note: &str) {
        let directory = self.directory.path().display();
        let provider = format!("provider \"notes\" {{\n  directory = \"{directory}\"\n}}");
        let configuration = format!("{provider}\nresource \"notes_note\" \"it\" {{\n{note}\n}}\n");
        self.workspace.configure("notes", &configuration);
    }

    fn append(&self, block: &str) {
        let main = self.workspace.work().join("main.tf");
        fs::write(&main, fs::read_to_string(&main).unwrap() + block + "\n").unwrap();
    }

    fn apply(&self) -> String {
        self.workspace.succeed(&["apply", "-no-color", "-auto-approve"])
    }

    fn attributes(&self) -> serde_json::Value {
        self.workspace.state()["values"]["root_module"]["resources"][0]["values"].clone()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const FULL: &str =
    "title = \"a\"\ntext = \"t\"\ntags = [\"y\", \"x\", \"y\"]\npages = [{ name = \"p\" }, { name = \"q\" }]";

#[test]
fn every_second_plan_is_empty() {
    let notes = Notes::new("title = \"a\"");
    for configuration in
        ["title = \"a\"", FULL, "title = \"a\"\npages = [{ name = \"q\" }]\ntags = []", "title = \"a\""]
    {
        notes.configure(configuration);
        notes.apply();
        assert!(notes.workspace.plan_is_empty(), "{configuration}");
    }
}

#[test]
fn rule_3_allocated_values_follow_their_element_to_another_place() {
    let notes = Notes::new(FULL);
    notes.apply();
    notes.configure("title = \"a\"\npages = [{ name = \"new\" }, { name = \"q\" }, { name = \"p\" }]");
    notes.apply();
    let pages = notes.attributes()["pages"].clone();
    let numbers: Vec<_> =
        pages.as_array().unwrap().iter().map(|page| page["number"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [3, 2, 1]);
}

#[test]
fn a_change_is_made_in_place_or_replaces_as_the_attribute_says() {
    let notes = Notes::new(FULL);
    notes.apply();
    notes.configure(&FULL.replace("\"t\"", "\"changed\""));
    assert!(notes.apply().contains("0 added, 1 changed, 0 destroyed"));
    notes.configure(&FULL.replace("\"a\"", "\"b\""));
    assert!(notes.apply().contains("1 added, 0 changed, 1 destroyed"));
    assert_eq!(notes.files(), ["b.json", "b.secret"]);
}

#[test]
fn an_import_is_followed_by_an_empty_plan_and_a_destroy_leaves_nothing() {
    let notes = Notes::new(FULL);
    notes.apply();
    notes.workspace.succeed(&["state", "rm", "notes_note.it"]);
    notes.workspace.succeed(&["import", "-no-color", "notes_note.it", "a"]);
    assert!(notes.workspace.plan_is_empty());
    notes.workspace.succeed(&["destroy", "-no-color", "-auto-approve"]);
    assert!(notes.files().is_empty());
    let refusal = notes.workspace.fail(&["import", "-no-color", "notes_note.it", "a"]);
    assert!(refusal.contains("Cannot import non-existent remote object"), "{refusal}");
}

#[test]
fn what_went_away_or_drifted_is_planned_back() {
    let notes = Notes::new(FULL);
    notes.apply();
    let file = notes.directory.path().join("a.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"t\"", "\"drift\"")).unwrap();
    assert!(!notes.workspace.plan_is_empty());
    fs::remove_file(&file).unwrap();
    assert!(notes.apply().contains("1 added, 0 changed, 0 destroyed"));
}

#[test]
fn host_rule_6_a_write_only_secret_arrives_and_is_in_no_plan_and_no_state() {
    let notes = Notes::new("title = \"a\"");
    for version in [1, 2] {
        notes.configure(&format!("title = \"a\"\nsecret_wo = var.secret\nsecret_wo_version = {version}"));
        notes.append("variable \"secret\" {\n  ephemeral = true\n}");
        let secret = format!("-var=secret=hunter2-{version}");
        notes.workspace.succeed(&["plan", "-no-color", "-out=plan", &secret]);
        let plan = notes.workspace.succeed(&["show", "-json", "plan"]);
        notes.workspace.succeed(&["apply", "-no-color", &secret, "plan"]);
        let arrived = fs::read_to_string(notes.directory.path().join("a.secret")).unwrap();
        assert_eq!(arrived, format!("hunter2-{version}"));
        assert!(!plan.contains("hunter2") && !notes.workspace.state_file().contains("hunter2"));
    }
}

#[test]
fn a_rule_of_the_resource_is_told_at_validate_beside_its_line() {
    let notes = Notes::new("title = \"a/b\"");
    let refusal = notes.workspace.fail(&["validate", "-no-color"]);
    assert!(refusal.contains("Title has a slash") && refusal.contains("title = \"a/b\""), "{refusal}");
}

#[test]
fn values_that_are_not_known_yet_are_carried_through_the_plan() {
    let notes =
        Notes::new("title = \"a\"\ntext = terraform_data.later.output\ntags = [terraform_data.later.output]");
    notes.append("resource \"terraform_data\" \"later\" {\n  input = \"said later\"\n}");
    notes.workspace.succeed(&["init", "-no-color"]);
    notes.apply();
    assert!(notes.workspace.plan_is_empty());
    assert!(fs::read_to_string(notes.directory.path().join("a.json")).unwrap().contains("said later"));
}

#[test]
fn an_interrupt_in_the_middle_of_an_apply_leaves_no_orphan() {
    let notes = Notes::new("title = \"a\"\nslow = true");
    let mut apply = notes.workspace.command(&["apply", "-no-color", "-auto-approve"]);
    let apply = apply.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while notes.files().len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the create did not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(i32::try_from(apply.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = apply.wait_with_output().unwrap();
    assert!(cli::text(&output).contains("The note exists; apply again to go on."));
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(notes.attributes()["id"], "a", "the state knows what exists");
}
