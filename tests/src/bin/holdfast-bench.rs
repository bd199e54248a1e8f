//! `holdfast-bench`: our figures beside their limits. See `holdfast_tests::bench`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_tests::bench;

/// Measures Holdfast against the limits of the tools below it, on this machine, now.
///
/// Exit code 0: every row that decides reached its must; 1: one did not; 2: one could not be measured.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    options: bench::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = bench::run(&Args::parse().options).await;
    let (code, failures) = match outcome {
        Ok(outcome) if !outcome.failures.is_empty() => (2, outcome.failures),
        Ok(outcome) => (u8::from(!outcome.passed), Vec::new()),
        Err(error) => (2, vec![format!("{error:#}")]),
    };
    for failure in failures {
        eprintln!("holdfast-bench: {failure}");
    }
    ExitCode::from(code)
}
