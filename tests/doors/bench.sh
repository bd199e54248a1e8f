#!/usr/bin/env bash
# Prints the figures of the design's performance goals against their limits, measured in the same run.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_root "the bench"
need_cargo
stage "binaries"
cargo build --locked --release -p holdfast-controller -p holdfast-node -p holdfast-tests --bins
[ -x target/release/holdfast-bench ] || refuse "there is no holdfast-bench yet: this version measures nothing"
exec target/release/holdfast-bench "$@"
