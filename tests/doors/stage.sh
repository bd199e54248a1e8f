# Stages with elapsed time; sourced by the scripts beside it, which run from the root of the repository.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# What is built here is read by others, such as a guest's kernel or apt's own user, whatever mask the caller likes.
umask 022
# The doors look for what they built below target/, whatever the caller's other builds use.
export CARGO_TARGET_DIR=$PWD/target
cache=${HOLDFAST_CACHE:-$HOME/.cache/holdfast}
export PATH="$HOME/.cargo/bin:$PATH"

# Counted from the first script of a run, whichever calls which.
export STAGES_SINCE=${STAGES_SINCE:-$(date +%s)}
stage() {
    local passed=$(($(date +%s) - STAGES_SINCE))
    printf '\n== %02d:%02d  %s\n' "$((passed / 60))" "$((passed % 60))" "$1" >&2
}
refuse() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || refuse "$1 needs root, for network and mount namespaces and for packages; run it in a root shell that has cargo on its PATH"
}

need_cargo() {
    command -v cargo >/dev/null || refuse "cargo is missing; install a Rust toolchain with rustup, then run this again"
}

is_built() {
    local path
    for path; do [ -e "$path" ] || return 1; done
}

peers_built() {
    local paths
    mapfile -t paths < <(tests/peers/build.sh --path kubernetes kine)
    is_built "${paths[@]}"
}

image_built() { is_built "$(images/"$1"/build.sh --path)"; }
