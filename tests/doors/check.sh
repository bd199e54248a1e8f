#!/usr/bin/env bash
# What a change must pass before it is read by anybody.
#
#   check.sh [--together]     without checking each crate alone, which builds most dependencies five times
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_cargo
crates=(holdfast-api holdfast-client holdfast-controller holdfast-node terraform-provider-holdfast holdfast-tests)

case ${1:-} in
    "") ;;
    --together) crates=() ;;
    *) refuse "\"$1\" is no option; the only one is --together" ;;
esac

stage "format"
cargo fmt --all --check
# No package brings Terraform: who changes an example has it.
if command -v terraform >/dev/null; then
    terraform fmt -check -diff -recursive examples/terraform terraform-provider/examples ||
        refuse "examples are not in the form of terraform fmt; run terraform fmt -recursive on the folders above"
fi
stage "scripts"
while IFS= read -r script; do bash -n "$script"; done < <(git ls-files '*.sh' .ci/run)
stage "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
# Alone, a crate cannot live on features another one switched on.
for crate in "${crates[@]}"; do
    stage "$crate alone"
    cargo check --locked -p "$crate"
done
stage "layers"
# The plugin kit knows the protocol and nothing of what a provider manages.
if git grep -nE '\b(kube|k8s_openapi|holdfast_api|resources)::' -- terraform-provider/src/plugin; then
    refuse "terraform-provider/src/plugin names what only terraform-provider/src/resources may"
fi
stage "licences, bans, sources (no advisories: their database needs a network)"
tests/doors/deny.sh
stage "generated files"
tests/doors/generate.sh --check
stage "documents"
tests/doors/documents.sh
stage "sizes"
tests/doors/sizes.sh
stage "all passed"
