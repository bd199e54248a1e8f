//! `terraform-provider-holdfast`: virtual machines at the edge, from Terraform or OpenTofu.
//!
//! The host starts it, once for each phase of a command. Start reading at `plugin/serve.rs` for what happens then, and
//! in `resources/` for what is managed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use holdfast_api::names::PROVIDER_SOURCE;
use holdfast_provider::plugin::{document, log, serve};
use holdfast_provider::resources::Holdfast;

/// The plugin with which Terraform and OpenTofu manage Holdfast. They start it; by itself it does nothing.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    /// Serve in plain text until interrupted, and print the variable that makes the host use this process.
    #[arg(long)]
    debug: bool,

    /// The address that configurations under debugging name the provider by.
    #[arg(long, default_value = PROVIDER_SOURCE, requires = "debug")]
    source: String,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the documentation that registries show: index.md, resources/ and data-sources/.
    Docs {
        /// Folder to write into.
        #[arg(long)]
        dir: PathBuf,
        /// Folder with the examples that the pages show.
        #[arg(long, default_value = "terraform-provider/examples")]
        examples: PathBuf,
    },
}

fn main() -> ExitCode {
    // Before anything else: the first use of TLS without a provider would panic. It fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let outcome = match &args.command {
        Some(Command::Docs { dir, examples }) => write_documents(dir, examples),
        None => run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terraform-provider-holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write_documents(dir: &Path, examples: &Path) -> anyhow::Result<()> {
    Ok(document::write(&document::pages(&Holdfast, examples)?, dir)?)
}

fn run(args: &Args) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    log::start(variable);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Requests wait for the network; the second thread is for a plan that takes long beside a stop.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let served = runtime.block_on(async {
        if args.debug {
            serve::debug(Holdfast, &args.source).await
        } else {
            serve::plugin(Holdfast, variable).await
        }
    });
    // Whatever still blocks would only delay the end.
    runtime.shutdown_background();
    Ok(served?)
}
