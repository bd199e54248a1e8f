#!/usr/bin/env bash
# Tells every story: one test binary at a time, two stories at a time, since a guest under emulation fills a core.
#
# A story that fails is told once more, alone, and named at the end: an emulated guest dies of a fault of its emulator
# now and then (images/README.md), which proves nothing about Holdfast. One that fails twice fails the run.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
twice=() failed=()

tell() { cargo test --locked --workspace --test "$@"; }

# The names under the last "failures:" of libtest's output.
failures() { awk '/^failures:$/ { names = "" ; on = 1; next } on && /^    [a-z]/ { names = names " " $1; next } on && NF { on = 0 } END { print names }' "$log"; }

for file in tests/tests/*.rs; do
    binary=$(basename "$file" .rs)
    stage "stories: $binary"
    tell "$binary" --no-fail-fast -- --test-threads=2 2>&1 | tee "$log" && continue
    read -ra names < <(failures) || true
    if [ ${#names[@]} -eq 0 ]; then
        failed+=("$binary")
        continue
    fi
    stage "stories: $binary, once more: ${names[*]}"
    if tell "$binary" -- --exact --test-threads=1 "${names[@]}"; then twice+=("${names[@]/#/$binary::}"); else failed+=("$binary"); fi
done

[ ${#twice[@]} -eq 0 ] || printf 'told twice: %s\n' "${twice[@]}"
[ ${#failed[@]} -eq 0 ] || refuse "stories failed twice: ${failed[*]}"
