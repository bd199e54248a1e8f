#!/usr/bin/env bash
# Installs the Debian packages that the demo, the tests and the builds of the peers need.
#
#   packages.sh             install what is missing (Debian 12 or 13, as root)
#   packages.sh --list      print all of them, one a line
#   packages.sh --missing   print those an install would add, their dependencies aside
#   packages.sh --go        install only Go, if no Go new enough is on PATH
#
# No service of the machine is started or enabled by this: a policy-rc.d stands in the way while
# the packages unpack, and the units they would enable at the next boot are disabled again. What a
# killed run left of that, the next one clears up.
set -euo pipefail

readonly needed=(
    # hypervisor
    libvirt-daemon libvirt-daemon-system libvirt-clients
    qemu-system-x86 qemu-utils ovmf dnsmasq-base iptables nftables iproute2
    # building the workspace and the peers
    ca-certificates gcc libc6-dev make pkg-config libvirt-dev
    # test guests, and the way into them
    mmdebstrap gdisk dosfstools mtools e2fsprogs xz-utils openssh-client
    # what the stories look with
    procps systemd
    # a clock that jumps
    faketime
    # saved plans of Terraform are archives
    unzip
)
readonly policy=/usr/sbin/policy-rc.d kept=/usr/sbin/policy-rc.d.before-holdfast

say() { printf 'packages: %s (%d s)\n' "$1" "$SECONDS" >&2; }
refuse() { printf 'packages: %s\n' "$1" >&2; exit 1; }

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Go 1.21 is the first that fetches the toolchain a go.mod names.
go_is_enough() {
    command -v go >/dev/null || return 1
    local version
    version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
    version=${version#go1.}
    [ "${version%%[!0-9]*}" -ge 21 ]
}

wanted() {
    printf '%s\n' "${needed[@]}"
    command -v kubectl >/dev/null || echo kubernetes-client
    go_is_enough || echo golang-go
}

missing() {
    local package
    wanted | while read -r package; do
        [ "$package" != golang-go ] && is_installed "$package" || echo "$package"
    done
}

codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-}"); }

# Ours is known by a line of its own, and after that names the units that were enabled before.
policy_is_ours() { grep -qs '^# tests/peers/packages.sh$' "$policy"; }

hold_services() {
    policy_is_ours && return # a killed run's, which knows the units from before it
    [ ! -e "$policy" ] || mv "$policy" "$kept"
    { printf '#!/bin/sh\nexit 101\n# For the length of one install; units enabled before it:\n# tests/peers/packages.sh\n'; enabled_units; } >"$policy.new"
    chmod 755 "$policy.new"
    mv "$policy.new" "$policy"
}

release_services() {
    if policy_is_ours; then
        disable_new_units || true # grep finds nothing where no unit is new
        rm -f "$policy"
    fi
    [ ! -e "$kept" ] || [ -e "$policy" ] || mv "$kept" "$policy"
}

# One at a time; apt keeps the lock of a run that was killed until it ends itself.
take_lock() {
    exec 8>/run/holdfast-packages.lock
    flock 8
}

clear_up() {
    policy_is_ours || return 0
    [ "$(id -u)" = 0 ] || refuse "an install was killed and left $policy, which keeps every package from starting its services; run this as root to clear up"
    take_lock
    policy_is_ours || return 0 # it was alive, and has ended
    say "clearing up after an install that was killed"
    DEBIAN_FRONTEND=noninteractive dpkg --configure -a >/dev/null || refuse "dpkg --configure -a fails; see what it says and run this again"
    release_services
}

enabled_units() { find /etc/systemd/system -type l 2>/dev/null | sort; }

# Packages enable their units for the next boot; a machine that had no libvirt must not get one.
# A link removed is a unit disabled, and stays so over upgrades (deb-systemd-helper looks for the
# links). The helper itself recurses for ever over libvirtd's units, which name each other.
disable_new_units() {
    enabled_units | comm -13 <(sed '1,/^# tests.peers.packages.sh$/d' "$policy") - | grep -E '/(lib)?virt[^/]*$' | xargs -r rm -f
}

run_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >>"$work/log" 2>&1 && return
    tail -n 20 "$work/log" >&2
    refuse "apt-get ${*: -1} failed; its last lines stand above"
}

# Debian 12's own Go is too old, so Go alone comes from its backports. They are read from the
# mirror this machine uses already, through a source list that lives as long as this script.
install_go_from_backports() {
    local mirror key sources=$work/backports
    # shellcheck disable=SC2016  # apt expands these
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(CREATED_BY)' | awk '$2 == "bookworm" && $3 == "Packages" { print $1; exit }')
    [ -n "$mirror" ] || refuse "apt knows no mirror for bookworm, so Go cannot come from its backports; put Go 1.21 or newer on PATH and run this again"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$sources/parts" "$sources/lists/partial"
    cp -r /etc/apt/sources.list.d/. "$sources/parts/" 2>/dev/null || true
    cp /etc/apt/sources.list "$sources/parts/machine.list" 2>/dev/null || true
    echo "deb [signed-by=$key] $mirror bookworm-backports main" >"$sources/parts/holdfast-backports.list"
    local apt=(-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$sources/parts" -o "Dir::State::lists=$sources/lists")
    run_apt "${apt[@]}" update
    run_apt "${apt[@]}" install --no-install-recommends -t bookworm-backports golang-go
}

install_go() {
    say "installing Go"
    if [ "$(codename)" = bookworm ]; then
        install_go_from_backports
    else
        run_apt install --no-install-recommends golang-go
    fi
    go_is_enough || refuse "the package golang-go gives no Go 1.21 or newer here; put one on PATH and run this again"
}

install_packages() {
    local packages=("$@") rest=()
    case $(codename) in
        bookworm | trixie) ;;
        *) refuse "this is neither Debian 12 nor 13, whose package names this script knows; install what --missing prints and run this again" ;;
    esac
    [ "$(id -u)" = 0 ] || refuse "installing ${packages[*]} needs root; run this as root, or install them by hand"
    [ "$(dpkg --print-architecture)" = amd64 ] || refuse "the test guests are amd64 machines and this one is not; run the tests on amd64"

    take_lock
    work=$(mktemp -d)
    trap 'release_services; rm -rf "$work"' EXIT
    chmod 755 "$work"
    local package
    for package in "${packages[@]}"; do [ "$package" = golang-go ] || rest+=("$package"); done
    hold_services
    say "reading the package lists"
    run_apt update
    if [ ${#rest[@]} -gt 0 ]; then
        say "installing ${rest[*]}"
        run_apt install --no-install-recommends "${rest[@]}"
    fi
    [ ${#rest[@]} -eq ${#packages[@]} ] || install_go
    say "done"
}

main() {
    local packages
    case ${1:-} in
        --list) wanted; return ;;
        --missing) missing; return ;;
        --go) clear_up; go_is_enough || install_packages golang-go; return ;;
        "") ;;
        *) refuse "\"$1\" is no option; the options are --list, --missing and --go" ;;
    esac
    clear_up
    mapfile -t packages < <(missing)
    [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
}

main "$@"
