#!/bin/sh
# Installs, configures, upgrades, removes and purges a built package on a throw-away copy of this system: an overlay that
# only this process sees and that is gone when it ends.   try.sh <package.deb>, as root
set -eu
package=$(realpath "$1")
if [ -z "${HOLDFAST_TRY:-}" ]; then
    HOLDFAST_TRY=1 exec unshare --mount --propagation private "$0" "$package"
fi

fail() { echo "$package: $1" >&2 && exit 1; }
inside() { chroot "$copy" "$@"; }

# Over /mnt, which the copy itself then cannot see; nothing of it outlives the mount namespace.
mount -t tmpfs tmpfs /mnt
copy=/mnt/copy
mkdir /mnt/upper /mnt/work "$copy"
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work "$copy"
mount --bind /proc "$copy/proc"
mount --bind /dev "$copy/dev"
cp "$package" "$copy/package.deb"

installed() { inside dpkg -i /package.deb > "$copy/log" 2>&1 || { cat "$copy/log" >&2; fail "it does not install"; }; }

# As Debian makes it.
inside chown libvirt-qemu:libvirt-qemu /var/lib/libvirt/qemu
inside chmod 0750 /var/lib/libvirt/qemu
installed
inside id holdfast-image > /dev/null || fail "the user of the disk tool was not made"
[ "$(inside stat -c %a /var/lib/libvirt/qemu)" = 751 ] || fail "guests cannot pass /var/lib/libvirt/qemu"
said=$(inside holdfast-node check-config 2>&1) && fail "the installed configuration decides for the operator"
case $said in *nodeName*) ;; *) fail "the refusal does not name nodeName: $said" ;; esac

sed -i -e 's/^#nodeName:.*/nodeName: edge-7/' -e 's/^#insecureDev:/insecureDev:/' -e 's/^#  keyDir:/  keyDir:/' \
    "$copy/etc/holdfast/node.yaml"
inside holdfast-node check-config || fail "the configuration is refused once it is filled in"

installed
grep -q '^nodeName: edge-7' "$copy/etc/holdfast/node.yaml" || fail "an upgrade lost the configuration"
mkdir -p "$copy/var/lib/holdfast/keys"
inside dpkg --remove holdfast-node > /dev/null
[ -e "$copy/etc/holdfast/node.yaml" ] || fail "removing it lost the configuration"
inside dpkg --purge holdfast-node > /dev/null
! inside dpkg-statoverride --list /var/lib/libvirt/qemu > /dev/null || fail "purging it left its mode of /var/lib/libvirt/qemu"
[ ! -e "$copy/etc/holdfast" ] || fail "purging it left /etc/holdfast"
[ -d "$copy/var/lib/holdfast/keys" ] || fail "purging it took the node's state"
[ ! -e "$copy/usr/bin/holdfast-node" ] || fail "purging it left the program"
echo "$package: installs and leaves as it should"
