//! `terraform-provider-holdfast`: virtual machines at the edge, from Terraform or OpenTofu.
//!
//! The host starts it, once for each phase of a command. Start reading at `plugin/serve.rs` for what happens then, and
//! in `resources/` for what is managed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use holdfast_api::names::PROVIDER_SOURCE;
use holdfast_provider::package::{self, Package};
use holdfast_provider::plugin::{document, log, serve};
use holdfast_provider::resources::Holdfast;

/// The plugin with which Terraform and OpenTofu manage Holdfast. They start it. By hand it
/// packs itself or writes its documentation.
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
    /// Add the provider to a mirror, from which Terraform and OpenTofu install it without a registry.
    Mirror(Packing),
    /// Add the provider to a folder with what a registry takes. The checksums are not signed.
    Release(Packing),
}

#[derive(Debug, clap::Args)]
struct Packing {
    /// Folder of the mirror or the release.
    #[arg(long)]
    dir: PathBuf,
    /// The program to pack, of the same version; this one by default.
    #[arg(long, requires = "platform")]
    binary: Option<PathBuf>,
    /// What it was built for, such as `linux_arm64`.
    #[arg(long, requires = "binary")]
    platform: Option<String>,
}

fn main() -> ExitCode {
    // Before anything else: the first use of TLS without a provider would panic. It fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let outcome = match &args.command {
        Some(Command::Docs { dir, examples }) => write_documents(dir, examples),
        Some(Command::Mirror(packing)) => packing
            .package()
            .and_then(|package| Ok(package::mirror(&package, PROVIDER_SOURCE, &packing.dir)?)),
        Some(Command::Release(packing)) => {
            packing.package().and_then(|package| Ok(package::release(&package, &packing.dir)?))
        }
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

impl Packing {
    fn package(&self) -> anyhow::Result<Package> {
        let own = || std::env::current_exe().context("could not tell where this program lies");
        let program = self.binary.clone().map_or_else(own, Ok)?;
        let platform = self.platform.clone().unwrap_or_else(package::own_platform);
        Ok(Package::of(&program, &platform)?)
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
