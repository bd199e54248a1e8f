#!/usr/bin/env bash
# Tells every story: one test binary at a time, two stories at a time, since a guest under emulation fills a core.
#
# A story that fails fails the run, with one exception: where a guest panicked that nobody asked to, QEMU's emulation killed
# it (images/README.md), which proves nothing about Holdfast. Such a story is told once more, alone, and named at the end;
# never one without guests of its own.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

readonly told_once=" crashes enrolment installable package placement policies refusals rights "
log=$(mktemp)
trap 'rm -f "$log"' EXIT
twice=() failed=()

tell() { cargo test --locked --workspace --test "$@"; }

# The names under the last "failures:" of libtest's output.
failures() { awk '/^failures:$/ { names = "" ; on = 1; next } on && /^    [a-z]/ { names = names " " $1; next } on && NF { on = 0 } END { print names }' "$log"; }

# Panics in the serial logs of a binary's guests; those by the verb `panic` are part of a story.
emulator_faults() {
    find "target/sites/$1" -name '*serial*' -type f -exec grep -ahE 'Kernel panic - not syncing' {} + 2>/dev/null |
        grep -v 'sysrq triggered crash'
}

for file in tests/tests/*.rs; do
    binary=$(basename "$file" .rs)
    # Needs a peer that no package brings: `make test-terraform`.
    [ "$binary" != terraform ] || continue
    stage "stories: $binary"
    tell "$binary" --no-fail-fast -- --test-threads=2 2>&1 | tee "$log" && continue
    read -ra names < <(failures) || true
    if [ ${#names[@]} -eq 0 ] || [[ $told_once == *" $binary "* ]] || ! emulator_faults "$binary"; then
        failed+=("$binary${names[*]:+ (${names[*]})}")
        continue
    fi
    stage "stories: $binary, once more, since a guest died of its emulator: ${names[*]}"
    if tell "$binary" -- --exact --test-threads=1 "${names[@]}"; then twice+=("${names[@]/#/$binary::}"); else failed+=("$binary"); fi
done

[ ${#twice[@]} -eq 0 ] || printf 'told twice: %s\n' "${twice[@]}"
[ ${#failed[@]} -eq 0 ] || refuse "stories failed: ${failed[*]}"
