#!/usr/bin/env bash
# The documents tell the truth where a program can judge it: paths exist, the README's example is the example, every
# reason of a condition has its line in docs/kinds and every reason there is one the code gives.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

documents() { git ls-files '*.md'; }
failed=no
fail() { printf 'documents: %s\n' "$1" >&2; failed=yes; }

# Links of Markdown that lead to a file, and `code` that starts with one of our folders.
paths_of() {
    local document=$1 folder
    folder=$(dirname "$document")
    grep -oE '\]\([^)# ]+' "$document" | sed 's/^](//' | grep -v '^https\?:' | sed "s|^|$folder/|" || true
    grep -oE '`(api|controller|node-daemon|terraform-provider|tests|images|policies|deploy|examples|docs|\.ci)/[^` ]*`' "$document" |
        tr -d '`' || true
}

check_paths() {
    local document path
    while IFS= read -r document; do
        while IFS= read -r path; do
            # A pattern names what matches it; at least one file must.
            compgen -G "$path" >/dev/null || fail "$document names $path, which does not exist"
        done < <(paths_of "$document" | sort -u)
    done < <(documents)
}

check_make_targets() {
    local document target
    while IFS= read -r document; do
        while IFS= read -r target; do
            grep -qE "^$target:" Makefile || fail "$document names make $target, which the Makefile does not have"
        done < <(grep -oE '`(eval "\$\()?make (-s )?[a-z-]+' "$document" | awk '{ print $NF }' | sort -u)
    done < <(documents)
}

check_example() {
    local shown
    shown=$(awk '/^```yaml$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' README.md)
    diff -u examples/vm.yaml <(printf '%s\n' "$shown") >&2 ||
        fail "the first YAML of README.md is not examples/vm.yaml; copy it there"
}

check_paths
check_make_targets
check_example
tests/doors/reasons.sh || failed=yes
[ "$failed" = no ]
