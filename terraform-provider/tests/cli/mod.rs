//! The real `tofu`, kept apart from the machine: its own home, configuration and mirror, and no inherited variable that
//! could change what it does.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in helpers of tests too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Where a test's provider comes from. The domain is reserved, so no registry can be meant.
const HOST: &str = "mirror.example.org";
const VERSION: &str = "0.1.0";

/// The provider's program.
pub(crate) fn holdfast() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_terraform-provider-holdfast"))
}

/// A folder with a configuration and a mirror that holds one provider.
pub(crate) struct Workspace {
    folder: TempDir,
    program: PathBuf,
}

impl Workspace {
    /// A workspace in which `HOST/holdfast/<name>` is that program.
    pub(crate) fn with(name: &str, program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = format!("linux_{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        let package =
            folder.path().join("mirror").join(HOST).join("holdfast").join(name).join(VERSION).join(platform);
        fs::create_dir_all(&package).unwrap();
        symlink(program, package.join(format!("terraform-provider-{name}_v{VERSION}"))).unwrap();
        let mirror = folder.path().join("mirror").display().to_string();
        let settings =
            format!("provider_installation {{\n  filesystem_mirror {{ path = \"{mirror}\" }}\n}}\n");
        fs::write(folder.path().join("cli.tfrc"), settings).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, program: tofu() }
    }

    /// Where the configuration and the state lie.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Writes the configuration; what selects the provider is added.
    pub(crate) fn configure(&self, name: &str, configuration: &str) {
        let required = format!("{name} = {{ source = \"{HOST}/holdfast/{name}\" }}");
        let text =
            format!("terraform {{\n  required_providers {{\n    {required}\n  }}\n}}\n{configuration}\n");
        fs::write(self.work().join("main.tf"), text).unwrap();
    }

    /// A command that is not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.work())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path().join("home"))
            .env("TF_CLI_CONFIG_FILE", self.folder.path().join("cli.tfrc"))
            .env("TF_DATA_DIR", self.folder.path().join("data"))
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command and gives what came of it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed and gives its standard output.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail and gives all it wrote, lines unbroken.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether a plan finds nothing to do.
    pub(crate) fn plan_is_empty(&self) -> bool {
        let output = self.run(&["plan", "-no-color", "-detailed-exitcode"]);
        match output.status.code() {
            Some(0) => true,
            Some(2) => false,
            _ => panic!("{}", text(&output)),
        }
    }

    /// The state as JSON.
    pub(crate) fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.succeed(&["show", "-json"])).unwrap()
    }

    /// The state file as it stands.
    pub(crate) fn state_file(&self) -> String {
        fs::read_to_string(self.work().join("terraform.tfstate")).unwrap()
    }
}

/// All that a command wrote.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// OpenTofu as `tests/peers/build.sh` builds it. Stories in `tests/` meet Terraform too.
fn tofu() -> PathBuf {
    let cache = std::env::var_os("HOLDFAST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast"),
        PathBuf::from,
    );
    let programs = fs::read_dir(cache.join("peers")).into_iter().flatten().filter_map(Result::ok);
    let found = programs
        .map(|it| it.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tofu-v")));
    found.max().expect("peer missing: tofu (run tests/peers/build.sh opentofu)")
}
