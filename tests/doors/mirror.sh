#!/usr/bin/env bash
# Packs the Terraform provider for those who reach no registry, and for a registry.
#
#   mirror.sh                    a release build, for this machine's platform
#   mirror.sh BINARY PLATFORM    this program of the same version, built elsewhere, such as linux_arm64
#
# What is there already stays beside it, so platforms and versions add up:
#   target/provider-mirror       a filesystem mirror for Terraform and OpenTofu; served over https, a network mirror
#   target/provider-release      zips, manifest and SHA256SUMS of the version. Not signed: whoever publishes signs the sums
set -euo pipefail
source "$(dirname "$0")/stage.sh"

need_cargo
case $# in
    0) what=() ;;
    2) [ -f "$1" ] || refuse "$1 is no program; build it first"; what=(--binary "$(realpath "$1")" --platform "$2") ;;
    *) refuse "give a program and its platform, such as linux_arm64, or nothing" ;;
esac

stage "the provider, optimised (10 minutes when cold)"
cargo build --locked --release -p terraform-provider-holdfast
provider=target/release/terraform-provider-holdfast
"$provider" mirror --dir target/provider-mirror "${what[@]}"
"$provider" release --dir target/provider-release "${what[@]}"

stage "packed"
cat >&2 <<TEXT
To install from it, let TF_CLI_CONFIG_FILE name a file that says:

provider_installation {
  filesystem_mirror { path = "$PWD/target/provider-mirror" }
}
TEXT
find target/provider-mirror target/provider-release -type f | LC_ALL=C sort
