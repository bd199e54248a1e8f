#!/usr/bin/env bash
# The provider under a real Terraform: protocol, kit and stories. Apart from the other tests, because it needs a
# `terraform` on PATH, which no package brings.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_root "the test run"
need_cargo
stage "packages and peers"
tests/peers/packages.sh
tests/peers/build.sh
stage "binaries and examples"
cargo build --locked --workspace --bins --examples
stage "the provider under Terraform"
cargo test --locked --workspace --test protocol --test kit --test terraform
stage "all passed"
