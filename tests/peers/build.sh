#!/usr/bin/env bash
# Builds the real programs that stand behind the demo and the tests, from Go modules alone.
#
#   build.sh [--path] [kubernetes|kine|opentofu]...      (default: all)
#
# Each program lands as ${HOLDFAST_CACHE:-~/.cache/holdfast}/peers/<program>-<version>.
# A program that is there already is left alone. --path prints where they are, and builds nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOLDFAST_CACHE:-$HOME/.cache/holdfast}/peers

say() { printf 'peers: %s (%d s)\n' "$1" "$SECONDS" >&2; }
refuse() { printf 'peers: %s\n' "$1" >&2; exit 1; }

# The module a folder is about: the one its go.mod names first in a require.
module_of() {
    case $1 in
        kubernetes) echo k8s.io/kubernetes ;;
        kine) echo github.com/k3s-io/kine ;;
        opentofu) echo github.com/opentofu/opentofu ;;
        *) refuse "no peer is called \"$1\"; the peers are kubernetes, kine and opentofu" ;;
    esac
}

# The version go.mod asks for, so that it stands in one place only.
version_of() {
    local module
    module=$(module_of "$1")
    awk -v module="$module" \
        '$1 == "require" && $2 == module { print $3 } $1 == module && $2 ~ /^v/ { print $2 }' \
        "$here/$1/go.mod" | head -n 1
}

# The packages to build, one a line; the last path element names the program.
packages_of() {
    case $1 in
        kubernetes) printf '%s\n' k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager ;;
        kine) echo github.com/k3s-io/kine ;;
        opentofu) echo github.com/opentofu/opentofu/cmd/tofu ;;
    esac
}

# Kubernetes shows the version its linker was told; without it clients see v0.0.0.
ldflags_of() {
    local flags="-s -w" version
    version=$(version_of "$1")
    case $1 in
        kubernetes)
            local minor=${version#v1.} package
            for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
                flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
            done
            ;;
        kine) flags+=" -X github.com/k3s-io/kine/pkg/version.Version=$version" ;;
        # Else it calls itself a development build, and may do what a release may not.
        opentofu) flags+=" -X github.com/opentofu/opentofu/version.dev=no" ;;
    esac
    echo "$flags"
}

programs_of() {
    local package
    packages_of "$1" | while read -r package; do
        echo "$cache/${package##*/}-$(version_of "$1")"
    done
}

is_built() {
    local program
    for program in $(programs_of "$1"); do
        [ -x "$program" ] || return 1
    done
}

build() {
    local peer=$1 version work package
    version=$(version_of "$peer")
    [ -n "$version" ] || refuse "$peer/go.mod requires no version of $(module_of "$peer")"
    rm -rf "$cache/.build-$peer".* # what a killed build left
    work=$(mktemp -d "$cache/.build-$peer.XXXXXX")
    # shellcheck disable=SC2064  # the folder is known now and local later
    trap "rm -rf '$work'" EXIT

    cd "$here/$peer"
    export GOTOOLCHAIN=auto GOFLAGS="-mod=readonly -buildvcs=false -trimpath" CGO_ENABLED=1
    say "$peer $version: fetching modules"
    go mod download
    for package in $(packages_of "$peer"); do
        say "$peer $version: building ${package##*/}"
        go build -o "$work/${package##*/}" -ldflags "$(ldflags_of "$peer")" "$package"
    done
    for package in $(packages_of "$peer"); do
        mv "$work/${package##*/}" "$cache/${package##*/}-$version"
    done
    rm -rf "$work"
    say "$peer $version: done"
}

main() {
    local paths_only=no peer
    if [ "${1:-}" = --path ]; then paths_only=yes; shift; fi
    [ $# -gt 0 ] || set -- kubernetes kine opentofu
    for peer; do module_of "$peer" >/dev/null; done
    if [ $paths_only = yes ]; then
        for peer; do programs_of "$peer"; done
        return
    fi
    mkdir -p "$cache"
    exec 9>"$cache/.lock" # of several at once, one builds and the others wait for it
    flock 9
    for peer; do
        is_built "$peer" && continue
        "$here/packages.sh" --go
        (build "$peer")
    done
}

main "$@"
