//! `holdfast-bench`: our figures beside their limits. See `holdfast_tests::bench`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use holdfast_tests::bench;

/// Measures Holdfast against the limits of the tools below it, on this machine, now.
///
/// Exit code 0: every row that decides reached its must; 1: one did not; 2: it could not be measured.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    options: bench::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(&Args::parse().options).await {
        Ok(outcome) => {
            let printed = std::io::stdout().write_all(outcome.text.as_bytes());
            if printed.is_ok() && outcome.passed { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("holdfast-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
