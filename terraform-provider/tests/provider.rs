//! The provider under the real Terraform.

#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod cli;

use cli::{Workspace, holdfast};

const PROVIDER: &str = "mirror.example.org/holdfast/holdfast";

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
