#!/usr/bin/env bash
# Builds the full test guest: Debian 13 with its own cloud-init, kernel and OpenSSH on a 2 GiB
# disk that boots with UEFI and grows with the disk it is copied to.
#
#   build.sh          build unless it is there
#   build.sh --path   print where it is, or will be
set -euo pipefail
image=debian
# shellcheck source=../recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

recipe=$images/debian

# First sectors and sizes. The root partition is the last one, so that cloud-init can grow it.
readonly esp_at=2048 esp_sectors=65536 root_at=67584 disk_sectors=4194304
readonly root_sectors=$((disk_sectors - root_at - 2048))
readonly root_uuid=5d1fbf8c-3ac0-4f6b-9d0b-7e2a5d1c0002

lines_of() { grep -v '^#' "$recipe/$1"; }

# Where this machine gets its own Debian from.
mirror() {
    apt-get indextargets --format '$(SITE) $(CODENAME) $(CREATED_BY)' |
        awk '($2 == "bookworm" || $2 == "trixie") && $3 == "Packages" { print $1; exit }'
}

make_root() {
    local root=$1 from=$2
    mmdebstrap --quiet --variant=apt --include="$(lines_of packages | paste -sd ,)" \
        --dpkgopt="$recipe/root/etc/dpkg/dpkg.cfg.d/50-holdfast" \
        --essential-hook="copy-in $recipe/root/etc /" \
        --essential-hook="cat $recipe/initramfs-modules >>\"\$1/etc/initramfs-tools/modules\"" \
        --customize-hook="chroot \"\$1\" systemctl enable --quiet systemd-networkd" \
        --customize-hook="chroot \"\$1\" systemctl mask --quiet $(lines_of units-masked | paste -sd ' ')" \
        trixie "$root" "$from" >"$work/mmdebstrap.log" 2>&1 && return
    tail -n 20 "$work/mmdebstrap.log" >&2
    refuse "mmdebstrap failed; its last lines stand above"
}

# What must be born in each guest and not be shared by all of them.
make_anonymous() {
    local root=$1
    : >"$root/etc/machine-id"
    rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
    rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
    ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
}

# The guest's own GRUB, without menu: it reads kernel and initrd from the second partition of
# the disk it was started from, whichever other disks there are.
make_loader() {
    local root=$1
    cp "$recipe/grub.cfg" "$root/tmp/grub.cfg"
    chroot "$root" grub-mkimage -O x86_64-efi -p '(,gpt2)/' -c /tmp/grub.cfg \
        -o /tmp/bootx64.efi fat ext2 part_gpt linux normal
    mv "$root/tmp/bootx64.efi" "$work/"
    rm "$root/tmp/grub.cfg"
}

make_esp() {
    truncate -s "$((esp_sectors * 512))" "$work/esp.fat"
    mkfs.vfat -F 16 -n ESP "$work/esp.fat" >/dev/null
    mmd -i "$work/esp.fat" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp.fat" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
}

build_image() {
    need_tools mmdebstrap qemu-img sgdisk mkfs.vfat mcopy mke2fs
    [ "$(id -u)" = 0 ] || refuse "unpacking a Debian with its owners and modes needs root; run this as root"
    local root=$work/root disk=$work/disk.raw from
    from=$(mirror)
    [ -n "$from" ] || refuse "apt knows no Debian mirror; run apt-get update, on Debian 12 or 13"
    chmod 755 "$work" # apt's own user works below it
    say "installing Debian 13 into a folder, one to two minutes"
    make_root "$root" "deb $from trixie main"
    say "making the disk"
    make_anonymous "$root"
    make_loader "$root"
    make_esp
    mke2fs -q -t ext4 -L holdfast-root -d "$root" "$work/root.ext4" "$((root_sectors / 2))k" >/dev/null
    truncate -s "$((disk_sectors * 512))" "$disk"
    sgdisk -n "1:$esp_at:+$((esp_sectors * 512 / 1024))K" -t 1:ef00 -c 1:esp \
        -n "2:$root_at:$((root_at + root_sectors - 1))" -t 2:8304 -c 2:root -u "2:$root_uuid" "$disk" >/dev/null
    write_partition "$disk" "$work/esp.fat" "$esp_at"
    write_partition "$disk" "$work/root.ext4" "$root_at"
    rm -rf "$root" "$work/root.ext4"
    publish "$disk"
}

main "$@"
