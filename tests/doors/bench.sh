#!/usr/bin/env bash
# Prints the figures of our performance goals beside their limits, measured in the same run; ID=B5 for one row.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_root "the bench"
need_cargo
stage "packages, peers, image"
tests/peers/packages.sh
tests/peers/build.sh kubernetes kine opentofu
images/tiny/build.sh
stage "binaries, optimised (15 minutes when cold)"
cargo build --locked --release --workspace --bins
stage "measuring"
exec target/release/holdfast-bench "$@"
