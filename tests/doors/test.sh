#!/usr/bin/env bash
# Everything that proves Holdfast, from empty caches: packages, peers, images, unit tests, stories with real guests.
#
#   test.sh [--long]
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_root "the test run"
need_cargo
case ${1:-} in
    "") ;;
    --long) export PROPTEST_CASES=20000 HOLDFAST_LONG=1 ;;
    *) refuse "\"$1\" is no option; the only one is --long" ;;
esac

stage "packages"
tests/peers/packages.sh
stage "peers"
tests/peers/build.sh
stage "images"
images/tiny/build.sh
images/debian/build.sh
# Always the whole workspace: a part of it would be built anew, with the features of that part.
stage "binaries and tests"
cargo build --locked --workspace --bins
cargo test --locked --workspace --no-run
stage "unit tests"
cargo test --locked --workspace --lib --bins
stage "the provider's kit and protocol"
cargo test --locked --workspace --test kit --test protocol --test provider
tests/doors/stories.sh
stage "all passed"
