#!/usr/bin/env bash
# Builds the tiny test guest: Debian's cloud kernel and busybox on a 48 MiB disk that boots
# with UEFI and with BIOS.
#
#   build.sh          build unless it is there
#   build.sh --path   print where it is, or will be
set -euo pipefail
# shellcheck disable=SC2034,SC2154  # shared with recipe.sh
image=tiny
# shellcheck source=../recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

recipe=$images/tiny

# First sectors; GRUB's BIOS core must lie where boot.img is told, see write_bios_loader.
readonly core_at=2048 esp_at=4096 esp_sectors=86016 state_at=90112 disk_sectors=98304

kernel_package() {
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get -qq update
    apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }'
}

# The modules of the list and all they depend on, uncompressed, with a fresh modules.dep.
copy_modules() {
    local version=$1 from=$2 to=$3 busybox=$4 file
    "$busybox" depmod -b "$from" "$version"
    awk -F '[: ]+' '
        NR == FNR { if ($1 !~ /^#/) wanted[$1]; next }
        { path = $1; name = path; sub(/.*\//, "", name); sub(/\.ko.*/, "", name); gsub("-", "_", name)
          if (name in wanted) for (i = 1; i <= NF; i++) if ($i != "") print $i }
    ' "$recipe/modules" "$from/lib/modules/$version/modules.dep" | sort -u | while read -r file; do
        install -D -m 644 "$from/lib/modules/$version/$file" "$to/lib/modules/$version/$file"
    done
    find "$to/lib/modules" -name '*.ko.xz' -exec xz -d {} +
    "$busybox" depmod -b "$to" "$version"
}

# A qcow2 header that names a file of the host as its backing file: what a hostile guest
# would write over its raw disk (CVE-2026-24708).
write_hostile_header() {
    qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw "$work/hostile.qcow2" 1M
    head -c 65536 "$work/hostile.qcow2" >"$1"
}

make_initramfs() {
    local tree=$work/initramfs unpacked=$work/unpacked version=$1 applet
    local busybox=$unpacked/bin/busybox
    [ -x "$busybox" ] || busybox=$unpacked/usr/bin/busybox
    mkdir -p "$tree"/{bin,dev,proc,sys,run,seed,etc}
    cp -r "$recipe/root/." "$tree/"
    chmod -R a+rX "$tree"
    chmod 755 "$tree/init" "$tree"/bin/* "$tree"/etc/acpi/PWRF/*
    cp "$busybox" "$tree/bin/busybox"
    for applet in $("$busybox" --list); do
        [ -e "$tree/bin/$applet" ] || ln -s busybox "$tree/bin/$applet"
    done
    copy_modules "$version" "$unpacked" "$tree" "$busybox"
    cp "$recipe/modules" "$tree/etc/modules"
    write_hostile_header "$tree/etc/hostile.qcow2"
    (cd "$tree" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc --quiet 2>/dev/null) >"$work/initramfs.cpio"
    gzip -n -9 "$work/initramfs.cpio"
}

# One GRUB per firmware, without menu or shell; both read grub.cfg's commands from inside.
make_loaders() {
    local grub=$work/unpacked/usr/lib/grub mkimage=$work/unpacked/usr/bin/grub-mkimage
    local commands=(fat part_gpt linux normal)
    "$mkimage" -O x86_64-efi -d "$grub/x86_64-efi" -p / -c "$recipe/grub.cfg" \
        -o "$work/bootx64.efi" "${commands[@]}"
    "$mkimage" -O i386-pc -d "$grub/i386-pc" -p '(,gpt2)/' -c "$recipe/grub.cfg" \
        -o "$work/core.img" biosdisk "${commands[@]}"
}

make_esp() {
    local esp=$work/esp.fat
    truncate -s "$((esp_sectors * 512))" "$esp"
    mkfs.vfat -F 16 -n TINY-BOOT -i 7151a55e --invariant "$esp" >/dev/null
    mmd -i "$esp" ::/EFI ::/EFI/BOOT
    mcopy -i "$esp" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
    mcopy -i "$esp" "$1" ::/vmlinuz
    mcopy -i "$esp" "$work/initramfs.cpio.gz" ::/initramfs
}

little_endian_64() {
    local i value=$1
    for ((i = 0; i < 8; i++)); do printf '%b' "\\x$(printf %02x $((value >> (8 * i) & 255)))"; done
}

patch_bytes() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# What grub-bios-setup does, without the block device it insists on: boot.img learns at 0x5c
# where core.img starts, and core.img's first sector at 0x1f4 where its second one is.
write_bios_loader() {
    local disk=$1 boot=$work/boot.img core=$work/core.img
    cp "$work/unpacked/usr/lib/grub/i386-pc/boot.img" "$boot"
    little_endian_64 "$core_at" | patch_bytes "$boot" $((0x5c))
    little_endian_64 $((core_at + 1)) | patch_bytes "$core" $((0x1f4))
    [ "$(stat -c %s "$core")" -le $(((esp_at - core_at) * 512)) ] || refuse "GRUB's core.img has outgrown its partition"
    head -c 440 "$boot" | patch_bytes "$disk" 0
    write_partition "$disk" "$core" "$core_at"
}

build_image() {
    need_tools apt-get dpkg-deb qemu-img sgdisk mkfs.vfat mcopy xz
    local kernel version disk=$work/disk.raw
    kernel=$(kernel_package)
    [ -n "$kernel" ] || refuse "the package sources offer no linux-image-cloud-amd64; this image is built on Debian 12 or 13"
    version=${kernel#linux-image-}
    say "fetching $kernel, busybox and GRUB"
    unpack_packages "$work/unpacked" "$kernel" busybox-static grub-common grub-pc-bin grub-efi-amd64-bin
    [ -d "$work/unpacked/lib/modules" ] || ln -s usr/lib "$work/unpacked/lib"
    say "making the disk"
    make_initramfs "$version"
    make_loaders
    make_esp "$work/unpacked/boot/vmlinuz-$version"
    truncate -s "$((disk_sectors * 512))" "$disk"
    sgdisk -a 1 -n "1:$core_at:$((esp_at - 1))" -t 1:ef02 -c 1:holdfast-bios \
        -n "2:$esp_at:$((esp_at + esp_sectors - 1))" -t 2:ef00 -c 2:holdfast-boot \
        -n "3:$state_at:$((state_at + 2047))" -t 3:8300 -c 3:holdfast-state "$disk" >/dev/null
    write_bios_loader "$disk"
    write_partition "$disk" "$work/esp.fat" "$esp_at"
    publish "$disk"
}

main "$@"
