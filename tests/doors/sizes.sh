#!/usr/bin/env bash
# Measures the house: sizes of files and functions. Fails for a Rust file over 500 lines.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)]; else print 0 }'; }
sources() { git ls-files '*.rs'; }
product() { sources | grep -vE '^tests/|tests\.rs$'; }

# rustfmt closes a function at the column where it opened it.
functions() {
    xargs awk '
        FNR == 1 { open = 0 }
        match($0, /^ *(pub(\([a-z]+\))? )?(const )?(async )?(unsafe )?(extern "C" )?fn /) && !/;$/ && !/}$/ {
            if (!open) { open = FNR; indent = $0; sub(/[^ ].*/, "", indent); next }
        }
        open && $0 == indent "}" { print FNR - open + 1 " " FILENAME ":" open; open = 0 }
    '
}

report() {
    local what=$1 files=$2
    printf '%-8s files %4d, median %3d lines, longest %3d; functions %4d, median %2d lines, longest %3d\n' "$what" \
        "$(wc -l <<<"$files")" \
        "$(xargs wc -l <<<"$files" | awk '$2 != "total" { print $1 }' | median)" \
        "$(xargs wc -l <<<"$files" | awk '$2 != "total" { print $1 }' | sort -n | tail -n 1)" \
        "$(functions <<<"$files" | wc -l)" \
        "$(functions <<<"$files" | awk '{ print $1 }' | median)" \
        "$(functions <<<"$files" | awk '{ print $1 }' | sort -n | tail -n 1)"
}

report product "$(product)"
report all "$(sources)"
long=$(sources | xargs wc -l | awk '$2 != "total" && $1 > 500')
[ -z "$long" ] || refuse "a file has at most 500 lines; split these:"$'\n'"$long"
