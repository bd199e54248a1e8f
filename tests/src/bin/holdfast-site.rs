//! `holdfast-site`: a whole site on this machine, for the demo and for trying things out.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_tests::demo::{self, Folder, Shape};

/// A control plane, the controller and hosts that run virtual machines, in namespaces of this machine.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Folder with everything the site keeps; default: `HOLDFAST_SITE_DIR`, else `.demo` in the repository.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up the site in the background and return when it is ready.
    Up(Shape),
    /// Bring up the site and hold it in the foreground until SIGTERM.
    Run(Shape),
    /// Take the site down and remove all it created.
    Down,
    /// Print the shell lines that make kubectl, terraform and tofu speak to the site.
    Env,
    /// Log in to a virtual machine, or run words in it.
    Ssh {
        /// Namespace of the virtual machine.
        #[arg(long, short, default_value = "default")]
        namespace: String,
        /// The virtual machine.
        machine: String,
        /// Words to run there.
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Say whether the site is up and what is in it.
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match obey(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A chain of sentences; a backtrace helps nobody who runs a demo.
            eprintln!("holdfast-site: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(args: Args) -> Result<()> {
    let folder = Folder::new(args.dir)?;
    match args.command {
        Command::Up(shape) => demo::up(&folder, shape).await,
        Command::Run(shape) => demo::run(&folder, shape).await,
        Command::Down => demo::down(&folder).await,
        Command::Env => demo::environment(&folder),
        Command::Ssh { namespace, machine, words } => demo::ssh(&folder, &namespace, &machine, &words).await,
        Command::Status => demo::status(&folder),
    }
}
