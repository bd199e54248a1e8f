//! The real `tofu` or `terraform` with our provider, kept apart from the machine: its own home, configuration and mirror,
//! and no inherited variable that could change what it does.

mod planned;
pub mod samples;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use holdfast_api::names::PROVIDER_SOURCE;
use serde_json::Value;

use crate::{files, peer};

pub use planned::Planned;

/// Most of the time is waiting.
const PARALLEL: &str = "-parallelism=40";
/// The plan that [`Workspace::foreseen`] leaves.
const SAVED: &str = "saved.plan";
/// As the provider is built with this harness.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What people type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cli {
    /// `tofu`, which `tests/peers/build.sh opentofu` builds.
    OpenTofu,
    /// `terraform`, which no package brings.
    Terraform,
}

impl Cli {
    /// OpenTofu, and Terraform where it is on PATH.
    pub fn here() -> Vec<Self> {
        let terraform = Self::Terraform.program().is_ok().then_some(Self::Terraform);
        [Self::OpenTofu].into_iter().chain(terraform).collect()
    }

    /// Its name as a command.
    pub fn word(self) -> &'static str {
        match self {
            Self::OpenTofu => "tofu",
            Self::Terraform => "terraform",
        }
    }

    fn program(self) -> Result<PathBuf> {
        match self {
            Self::OpenTofu => peer::built("tofu", "opentofu"),
            Self::Terraform => {
                peer::packaged("terraform", "terraform (put the binary of Terraform 1.11 or later on PATH)")
            }
        }
    }
}

/// A folder with a configuration, its state, and a mirror that holds the provider.
pub struct Workspace {
    folder: PathBuf,
    cli: Cli,
    program: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Workspace {
    /// A fresh workspace in that folder, initialised for a site that is reached by that kubeconfig.
    pub fn open(cli: Cli, folder: PathBuf, kubeconfig: &std::path::Path) -> Result<Self> {
        let mirror = folder.join("mirror");
        let installation = format!("filesystem_mirror {{ path = \"{}\" }}", mirror.display());
        let mut workspace = Self::empty(cli, folder, &installation)?;
        let platform = format!("linux_{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        let package = mirror.join(PROVIDER_SOURCE).join(VERSION).join(platform);
        files::create_folder(&package)?;
        let provider = peer::ours("terraform-provider-holdfast")?;
        let link = package.join(format!("terraform-provider-holdfast_v{VERSION}"));
        // The file itself, so that a build meanwhile does not change what the lock file has the hash of.
        let linked = fs::hard_link(&provider, &link).or_else(|_| fs::copy(&provider, &link).map(drop));
        linked.context("could not put the provider into the mirror")?;
        workspace.set("KUBE_CONFIG_PATH", &kubeconfig.display().to_string());
        workspace.configure("")?;
        workspace.succeed(&["init"])?;
        Ok(workspace)
    }

    /// A fresh workspace in that folder that is not initialised, with how it installs providers.
    pub fn empty(cli: Cli, folder: PathBuf, installation: &str) -> Result<Self> {
        files::remove_folder(&folder)?;
        for part in ["home", "work", "temporary"] {
            files::create_folder(&folder.join(part))?;
        }
        let settings = format!("provider_installation {{\n  {installation}\n}}\n");
        files::write(&folder.join("cli.tfrc"), settings)?;
        Ok(Self { folder, cli, program: cli.program()?, variables: BTreeMap::new() })
    }

    /// Sets a variable of the environment for all commands to come.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Where configuration and state lie.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Where a command and the providers it starts put what shall not outlive them.
    pub fn temporary(&self) -> PathBuf {
        self.folder.join("temporary")
    }

    /// Writes the configuration; what selects the provider is added.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        let required = format!("holdfast = {{ source = \"{PROVIDER_SOURCE}\" }}");
        let text =
            format!("terraform {{\n  required_providers {{\n    {required}\n  }}\n}}\n{configuration}\n");
        files::write(&self.work().join("main.tf"), text)
    }

    /// Takes an example of the repository as it stands, for a namespace.
    pub fn take_example(&self, name: &str, namespace: &str) -> Result<()> {
        let folder = peer::repository().join("examples/terraform").join(name);
        for entry in fs::read_dir(&folder).with_context(|| format!("no example {name}"))? {
            let file = entry.context("could not list the example")?;
            fs::copy(file.path(), self.work().join(file.file_name()))
                .context("could not copy the example")?;
        }
        // Terraform merges a file of this name over the blocks of the others.
        let namespace = format!("provider \"holdfast\" {{\n  namespace = \"{namespace}\"\n}}\n");
        files::write(&self.work().join("override.tf"), namespace)
    }

    /// A command that is not started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("-no-color")
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.join("home"))
            .env("TMPDIR", self.temporary())
            .env("TF_CLI_CONFIG_FILE", self.folder.join("cli.tfrc"))
            .env("TF_DATA_DIR", self.folder.join("data"))
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .envs(&self.variables)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, whatever comes of it.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.command(words).output().with_context(|| format!("could not run {} {words:?}", self.cli.word()))
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn succeed(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        ensure!(output.status.success(), "{} {words:?}: {}", self.cli.word(), said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must fail; returns all it said, lines unbroken.
    pub fn fail(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        ensure!(!output.status.success(), "{} {words:?} succeeded: {}", self.cli.word(), said(&output));
        Ok(said(&output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Applies a configuration; the plan after it must be empty.
    pub fn apply(&self, configuration: &str) -> Result<()> {
        self.configure(configuration)?;
        self.apply_what_stands()
    }

    /// Applies what lies in the workspace; the plan after it must be empty.
    pub fn apply_what_stands(&self) -> Result<()> {
        self.succeed(&["apply", "-auto-approve", PARALLEL])?;
        self.must_be_settled()
    }

    /// Applies what was last foreseen; the plan after it must be empty.
    pub fn apply_as_foreseen(&self) -> Result<()> {
        self.succeed(&["apply", PARALLEL, SAVED])?;
        self.must_be_settled()
    }

    /// The plan must be empty.
    pub fn must_be_settled(&self) -> Result<()> {
        let output = self.run(&["plan", "-detailed-exitcode", PARALLEL])?;
        ensure!(output.status.code() == Some(0), "a plan that is not empty: {}", said(&output));
        Ok(())
    }

    /// What a plan would do to each resource: its address and its actions.
    pub fn planned(&self, configuration: &str) -> Result<BTreeMap<String, Vec<String>>> {
        Ok(self.foreseen(configuration)?.into_iter().map(|it| (it.address, it.actions)).collect())
    }

    /// The same, with the attributes that would differ.
    pub fn foreseen(&self, configuration: &str) -> Result<Vec<Planned>> {
        self.configure(configuration)?;
        self.succeed(&["plan", &format!("-out={SAVED}"), PARALLEL])?;
        let plan: Value = serde_json::from_str(&self.succeed(&["show", "-json", SAVED])?)
            .context("could not read the plan")?;
        Ok(plan["resource_changes"].as_array().into_iter().flatten().map(Planned::of).collect())
    }

    /// The values of a resource in the state.
    pub fn values(&self, address: &str) -> Result<Value> {
        let state: Value =
            serde_json::from_str(&self.succeed(&["show", "-json"])?).context("could not read the state")?;
        let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|it| it["address"] == address);
        found.map(|it| it["values"].clone()).with_context(|| format!("{address} is not in the state"))
    }

    /// The value of an output in the state.
    pub fn output(&self, name: &str) -> Result<String> {
        Ok(self.succeed(&["output", "-raw", name])?.trim().to_owned())
    }

    /// All that lies in the workspace beside the mirror, as one text: for the search for secrets.
    pub fn everything(&self) -> Result<String> {
        let mut text = String::new();
        for entry in fs::read_dir(self.work()).context("could not list the workspace")? {
            let path = entry.context("could not list the workspace")?.path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != "tf") {
                text += &taken_apart(&path)?;
            }
        }
        Ok(text)
    }
}

/// A file as text. A saved plan is an archive, in which nothing would be found as it lies.
fn taken_apart(path: &std::path::Path) -> Result<String> {
    let bytes = if path.extension().is_some_and(|extension| extension == "plan") {
        let output = Command::new(peer::packaged("unzip", "unzip")?).arg("-p").arg(path).output();
        let output = output.with_context(|| format!("could not take {} apart", path.display()))?;
        ensure!(output.status.success(), "could not take {} apart: {}", path.display(), said(&output));
        output.stdout
    } else {
        fs::read(path).with_context(|| format!("could not read {}", path.display()))?
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
