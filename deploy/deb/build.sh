#!/bin/sh
# Builds the Debian package of the node daemon with dpkg-deb alone: target/deb/holdfast-node_<version>_<arch>.deb
# The same binary gives the same bytes: times in the package are those of the last commit.
#
#   build.sh               from a release build, into target/deb
#   build.sh BINARY OUT    from this binary, into the folder OUT
set -eu
cd "$(dirname "$0")/../.."
PATH="$HOME/.cargo/bin:$PATH"
export CARGO_TARGET_DIR="$PWD/target"

binary=${1:-}
out=${2:-target/deb}
if [ -z "$binary" ]; then
    cargo build --quiet --locked --release -p holdfast-node
    binary=target/release/holdfast-node
fi
[ -x "$binary" ] || { echo "deb: $binary is no program; build it, or give none to have it built" >&2; exit 1; }

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

root=$out/root
doc=$root/usr/share/doc/holdfast-node
rm -rf "$root"
umask 022
mkdir -p "$root/DEBIAN" "$root/etc/holdfast" "$doc"

install -D -m 0755 "$binary" "$root/usr/bin/holdfast-node"
strip --strip-unneeded "$root/usr/bin/holdfast-node"
install -D -m 0644 deploy/holdfast-node.service "$root/usr/lib/systemd/system/holdfast-node.service"
install -D -m 0644 deploy/deb/sysusers.conf "$root/usr/lib/sysusers.d/holdfast-node.conf"
install -m 0644 node-daemon/node.yaml "$doc/node.yaml"
install -m 0644 deploy/deb/copyright "$doc/copyright"
# What only a person can decide is not decided by installing a package: name and key are commented out, and the daemon
# says which one it misses.
sed -e 's/^nodeName:/#nodeName:/' -e 's/^insecureDev:/#insecureDev:/' -e 's/^  keyDir:/#  keyDir:/' \
    node-daemon/node.yaml > "$root/etc/holdfast/node.yaml"
chmod 0755 "$root/etc/holdfast"
chmod 0644 "$root/etc/holdfast/node.yaml"
printf 'holdfast-node (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- The Holdfast authors <holdfast@localhost>  %s\n' \
    "$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n > "$doc/changelog.gz"

# The C libraries the binary was linked with are the oldest it can run with.
library() { dpkg-query -W -f '${Version}' "$1" | sed 's/-[^-]*$//; s/^[0-9]*://'; }
size=$(du -sk --exclude=DEBIAN "$root" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$size/" \
    -e "s/@LIBC@/$(library libc6)/" -e "s/@LIBVIRT@/$(library libvirt0)/" \
    -e "s/@QEMU@/$([ "$architecture" = arm64 ] && echo 'qemu-system-arm, qemu-efi-aarch64' || echo 'qemu-system-x86, ovmf')/" \
    deploy/deb/control.in > "$root/DEBIAN/control"
echo /etc/holdfast/node.yaml > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 0755 "deploy/deb/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"

package=$out/holdfast-node_${version}_$architecture.deb
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zzstd --build "$root" "$package" > /dev/null
rm -rf "$root"
echo "$package"
