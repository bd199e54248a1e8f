#!/usr/bin/env bash
# Tells every story, or those of the named test binaries. Stories with guests two at a time, since a guest under emulation
# fills a core; beside them those without, which mostly wait.
#
# A story that fails fails the run, with one exception: where a guest panicked that nobody asked to, QEMU's emulation killed
# it (images/README.md), which proves nothing about Holdfast. Such a story is told once more, alone, and named at the end;
# never one without guests of its own.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

# Minutes under emulation each; libtest counts them as filtered out. The way from an image to SSH is told in `secrets` and
# `terraform_guest` too.
readonly long_only=(
    make_demo_leads_into_a_guest_can_be_repeated_and_leaves_nothing
    cloud_init_of_debian_makes_the_guest_answer_ssh
    the_example_of_a_cluster_is_three_guests_that_find_each_other
)
readonly without_guests=" crashes enrolment ill_hosts installable memory package placement policies refusals rights terraform terraform_faults terraform_login terraform_mirror terraform_property terraform_reads terraform_secrets unreadable writes "
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

tell() { cargo test --locked --workspace --test "$@"; }

# The names under the last "failures:" of libtest's output.
failures() { awk '/^failures:$/ { names = "" ; on = 1; next } on && /^    [a-z]/ { names = names " " $1; next } on && NF { on = 0 } END { print names }' "$1"; }

# Panics in the serial logs of a binary's guests; those by the verb `panic` are part of a story.
emulator_faults() {
    find "target/sites/$1" -name '*serial*' -type f -exec grep -ahE 'Kernel panic - not syncing' {} + 2>/dev/null |
        grep -v 'sysrq triggered crash'
}

tell_binary() {
    local binary=$1 log=$results/$1.log names skip=()
    [ -n "${HOLDFAST_LONG:-}" ] || skip=("${long_only[@]/#/--skip=}")
    stage "stories: $binary"
    tell "$binary" --no-fail-fast -- --test-threads=2 "${skip[@]}" 2>&1 | tee "$log" && return
    read -ra names < <(failures "$log") || true
    if [ ${#names[@]} -eq 0 ] || [[ $without_guests == *" $binary "* ]] || ! emulator_faults "$binary"; then
        echo "$binary${names[*]:+ (${names[*]})}" >>"$results/failed"
        return
    fi
    stage "stories: $binary, once more, since a guest died of its emulator: ${names[*]}"
    if tell "$binary" -- --exact --test-threads=1 "${names[@]}"; then
        printf 'told twice: %s\n' "${names[@]/#/$binary::}" >>"$results/twice"
    else
        echo "$binary (${names[*]})" >>"$results/failed"
    fi
}

tell_all() {
    local binary since
    for binary; do
        since=$SECONDS
        tell_binary "$binary"
        printf '%5d s  %s\n' "$((SECONDS - since))" "$binary" >>"$results/times"
    done
}

guests=() others=()
for file in tests/tests/*.rs; do
    binary=$(basename "$file" .rs)
    [ $# -eq 0 ] || [[ " $* " == *" $binary "* ]] || continue
    if [[ $without_guests == *" $binary "* ]]; then others+=("$binary"); else guests+=("$binary"); fi
done

# Their output comes in one piece, after that of the others.
tell_all "${others[@]}" >"$results/others" 2>&1 &
tell_all "${guests[@]}"
wait $! || echo "the stories without guests ended early" >>"$results/failed"
cat "$results/others"

stage "seconds of each story, the longest first"
sort -rn "$results/times"
cat "$results/twice" 2>/dev/null || true
[ ! -e "$results/failed" ] || refuse "stories failed: $(paste -sd ' ' "$results/failed")"
