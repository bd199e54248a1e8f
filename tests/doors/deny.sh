#!/usr/bin/env bash
# cargo-deny by deny.toml; built once into the cache, unoptimised, because it runs for a second.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

readonly version=0.20.2
tool=$cache/tools/cargo-deny-$version

[ -x "$tool/bin/cargo-deny" ] || {
    stage "building cargo-deny $version"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    CARGO_TARGET_DIR=$build CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install --quiet --locked --debug --root "$tool" cargo-deny --version "$version"
}
"$tool/bin/cargo-deny" --locked check licenses bans sources
