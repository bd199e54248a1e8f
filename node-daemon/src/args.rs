//! The command line, and what becomes of each command as an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::config::{self, Accelerator, EXIT_CONFIG};
use crate::{accelerator, log, run};

/// The Holdfast node daemon: makes libvirt match what the API says.
///
/// Exit codes: 0 ended as asked; 78 the configuration is wrong, the sentence names file and key, a restart will not help;
/// 1 anything else, a restart may help.
#[derive(Parser)]
#[command(version, about, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Configuration file.
    #[arg(long, global = true, default_value = "/etc/holdfast/node.yaml", env = "HOLDFAST_NODE_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (the default).
    Run,
    /// Check the configuration and end: 0 when it is good, 78 with a sentence when it is not.
    CheckConfig,
    /// Run guest code under KVM and end: 0 when it ran, 1 with a sentence when it did not. Needs no configuration.
    ProveKvm {
        /// QEMU program to prove it with; the distribution's for this processor by default.
        #[arg(long)]
        emulator: Option<PathBuf>,
    },
}

impl Args {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        let outcome = match self.command.unwrap_or(Command::Run) {
            Command::Run => daemon(&self.config),
            Command::CheckConfig => config::load(&self.config).map(|_| ()).map_err(Into::into),
            Command::ProveKvm { emulator } => prove_kvm(emulator),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("holdfast-node: {error:#}");
                exit_code(&error)
            }
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<config::Error>() {
        Some(_) => ExitCode::from(EXIT_CONFIG),
        None => ExitCode::FAILURE,
    }
}

fn daemon(path: &Path) -> Result<()> {
    let config = config::load(path)?;
    log::start(&config.log).context("could not start the log")?;
    runtime()?.block_on(run::run(config)).map_err(Into::into)
}

fn prove_kvm(emulator: Option<PathBuf>) -> Result<()> {
    let emulator = emulator.unwrap_or_else(config::default_emulator);
    let proved = runtime()?.block_on(accelerator::prove(Accelerator::Kvm, &emulator));
    proved.map_err(|failure| anyhow::anyhow!(accelerator::sentence(Accelerator::Kvm, &failure)))
}

/// Two threads: the daemon waits more than it works, and each thread costs memory on every node.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("could not start the asynchronous runtime")
}
