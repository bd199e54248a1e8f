#!/bin/sh
# Checks a built package of the node daemon: its files, its configuration and its unit.   check.sh <package.deb>
set -eu
package=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
dpkg-deb --raw-extract "$package" "$tree"

fail() { echo "$package: $1" >&2 && exit 1; }

# Everything belongs to root, and nobody else may write.
dpkg-deb --contents "$package" | awk '$2 != "root/root" || ($1 !~ /^l/ && ($1 ~ /^.....w/ || $1 ~ /^........w/)) { print; bad = 1 } END { exit bad }' \
    || fail "these files have the wrong owner or mode"
(cd "$tree" && md5sum --quiet --check DEBIAN/md5sums) || fail "md5sums do not fit"
"$tree/usr/bin/holdfast-node" --version > /dev/null || fail "the binary does not run here"

# As installed the daemon refuses to start and names what a person has to decide; the example is good as it is.
said=$("$tree/usr/bin/holdfast-node" check-config --config "$tree/etc/holdfast/node.yaml" 2>&1) && fail "the installed configuration decides for the operator"
case $said in *nodeName*) ;; *) fail "the refusal does not name nodeName: $said" ;; esac
"$tree/usr/bin/holdfast-node" check-config --config "$tree/usr/share/doc/holdfast-node/node.yaml" || fail "the example is refused"

command -v systemd-analyze > /dev/null || fail "peer missing: systemd, whose systemd-analyze checks the unit; run tests/peers/packages.sh"
unit=$tree/usr/lib/systemd/system/holdfast-node.service
# The binary is where the unit says only once it is installed.
sed -i "s#^ExecStart=/usr#ExecStart=$tree/usr#" "$unit"
said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F holdfast-node.service || true)
[ -z "$said" ] || fail "the unit: $said"
# docs/hardening.md says what is left; a rise says that somebody loosened it.
systemd-analyze security --offline=yes --threshold=29 "$unit" > /dev/null || fail "the unit is less confined than it was"
echo "$package: good"
