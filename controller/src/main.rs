//! `holdfast-controller`: places virtual machines, enrols nodes, grants each node what its placements need.

mod crds;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The Holdfast controller.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinitions, or write one file per kind into a folder.
    Crds {
        /// Folder to write into.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Crds { dir } => crds::write(dir.as_deref()),
    }
}
