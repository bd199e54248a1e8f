#!/usr/bin/env bash
# Runs a program of this machine under Debian's own kernel, in a virtual machine without disk
# and network, and ends as the program ended. For what the machine's kernel may lack, such as
# VLANs (802.1Q).
#
#   run.sh PROGRAM [ARGUMENT...]
set -euo pipefail
# shellcheck disable=SC2034 # recipe.sh names its messages and its cache by it
image=debian-kernel
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../images/recipe.sh
source "$here/../../images/recipe.sh"

# Loaded in this order; what they depend on comes along.
readonly modules=(veth bridge 8021q)
# Emulated, it boots in some 10 s; a program has the rest.
readonly limit=300

# vmlinuz and the part of the initramfs that is the same for every program, made once.
make_base() {
    local base=$1 kernel version tree=$work/base file
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$kernel" ] || refuse "the package sources offer no linux-image-cloud-amd64; this runs on Debian 12 or 13"
    version=${kernel#linux-image-}
    say "fetching $kernel"
    unpack_packages "$work/unpacked" "$kernel" busybox-static
    [ -d "$work/unpacked/lib/modules" ] || ln -s usr/lib "$work/unpacked/lib"
    mkdir -p "$tree/bin" "$work/out"
    cp "$(find "$work/unpacked" -name busybox -type f -path '*/bin/*' | head -n 1)" "$tree/bin/busybox"
    "$tree/bin/busybox" depmod -b "$work/unpacked" "$version"
    for file in $(needed_modules "$work/unpacked/lib/modules/$version/modules.dep"); do
        install -D -m 644 "$work/unpacked/lib/modules/$version/$file" "$tree/lib/modules/$version/$file"
    done
    find "$tree/lib/modules" -name '*.ko.xz' -exec xz -d {} +
    "$tree/bin/busybox" depmod -b "$tree" "$version"
    echo "${modules[@]}" >"$tree/modules"
    cp "$tree/bin/busybox" "$work/out/busybox"
    pack "$work/out/busybox" "$tree" >"$work/out/base.cpio"
    cp "$work/unpacked/boot/vmlinuz-$version" "$work/out/vmlinuz"
    # Another run may have been faster.
    mv -T "$work/out" "$base" 2>/dev/null || [ -e "$base/vmlinuz" ]
}

# The modules and all they depend on, as modules.dep names them.
needed_modules() {
    awk -F '[: ]+' -v wanted="${modules[*]}" '
        BEGIN { split(wanted, list, " "); for (i in list) want[list[i]] }
        { name = $1; sub(/.*\//, "", name); sub(/\.ko.*/, "", name)
          if (name in want) for (i = 1; i <= NF; i++) if ($i != "") print $i }
    ' "$1" | sort -u
}

pack() { (cd "$2" && find . | LC_ALL=C sort | "$1" cpio -o -H newc 2>/dev/null); }

# The program, what it calls, and their libraries, at the places they have here.
make_own() {
    local busybox=$1 tree=$work/own file tool
    shift
    mkdir -p "$tree"
    install -m 755 "$here/init" "$tree/init"
    for tool in "$1" "$(command -v ip)" "$(command -v bridge)"; do
        for file in "$tool" $(ldd "$tool" | grep -o '/[^ ]*'); do
            [ -e "$tree/$file" ] || install -D -m 755 "$file" "$tree/$file"
        done
    done
    objcopy --strip-debug "$tree/$1" 2>/dev/null || true
    printf '%q ' "$@" >"$tree/program"
    pack "$busybox" "$tree" >"$work/own.cpio"
}

main_run() {
    local base
    need_tools qemu-system-x86_64 xz ldd ip bridge
    # shellcheck disable=SC2154 # recipe.sh says where the cache is
    base=$cache/debian-kernel-$(sha256sum <"$here/run.sh" | cut -c 1-12)
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.run-debian-kernel.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    [ -e "$base" ] || make_base "$base"
    make_own "$base/busybox" "$@"
    cat "$base/base.cpio" "$work/own.cpio" >"$work/initramfs"
    timeout "$limit" qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 1G -nodefaults -no-reboot -display none \
        -kernel "$base/vmlinuz" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1" \
        -serial stdio </dev/null | tr -d '\r' | tee "$work/log"
    return "$(sed -n 's/^debian-kernel: exit //p' "$work/log" | grep . || echo 125)"
}

[ $# -gt 0 ] || refuse "name a program to run"
main_run "$@"
