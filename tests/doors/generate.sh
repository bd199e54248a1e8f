#!/usr/bin/env bash
# Writes the generated files anew.
#
#   generate.sh           into the repository
#   generate.sh --check   fail, with the difference, where the committed ones differ
set -euo pipefail
source "$(dirname "$0")/stage.sh"

crds() {
    cargo build --locked --quiet --workspace --bins
    target/debug/holdfast-controller crds --dir "$1"
}

# The provider's reference; its guides beside it are written by hand.
documents() { target/debug/terraform-provider-holdfast docs --dir "$1"; }

case ${1:-} in
    "")
        crds api/crds
        deploy/install.sh >deploy/install.yaml.new
        mv deploy/install.yaml.new deploy/install.yaml
        # A page of a kind that is gone must go too.
        rm -rf terraform-provider/docs/resources terraform-provider/docs/data-sources
        documents terraform-provider/docs
        ;;
    --check)
        fresh=$(mktemp -d)
        trap 'rm -rf "$fresh"' EXIT
        mkdir "$fresh/crds"
        crds "$fresh/crds"
        deploy/install.sh >"$fresh/install.yaml"
        documents "$fresh/docs"
        diff -ru api/crds "$fresh/crds" && diff -u deploy/install.yaml "$fresh/install.yaml" &&
            diff -ru --exclude=guides terraform-provider/docs "$fresh/docs" ||
            refuse "generated files differ from their sources; run make generate and commit the result"
        ;;
    *) refuse "\"$1\" is no option; the only one is --check" ;;
esac
