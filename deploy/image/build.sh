#!/usr/bin/env bash
# Builds the controller's image as an OCI image layout (target/image) and as an archive of it (target/image.tar), with
# tar, gzip and sha256sum alone. The same binary gives the same bytes: times, owners and order are fixed.
#
#   build.sh               from a release build, into target/image
#   build.sh BINARY OUT    from this binary, into OUT and OUT.tar
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$HOME/.cargo/bin:$PATH" CARGO_TARGET_DIR=$PWD/target
# Modes are part of the image.
umask 022

readonly out=${2:-target/image} user=65532:65532
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=localhost/holdfast-controller:$version
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "image: no name is known for the architecture $(uname -m); add it to deploy/image/build.sh" >&2; exit 1 ;;
esac

binary=${1:-}
if [ -z "$binary" ]; then
    cargo build --locked --release -p holdfast-controller
    binary=target/release/holdfast-controller
fi
[ -x "$binary" ] || { echo "image: $binary is no program; build it, or give none to have it built" >&2; exit 1; }

# It is replaced whole, so it has to be one that this script made.
[ ! -e "$out" ] || [ -e "$out/oci-layout" ] || { echo "image: $out is there and is no image; name another folder" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root blobs=$work/layout/blobs/sha256

# The program, the libraries it is linked to at the paths where it looks for them, and what names are resolved by.
fill_root() {
    local library
    install -D -m 755 "$binary" "$root/usr/bin/holdfast-controller"
    ldd "$binary" | grep -oE '/[^ ]+' | while read -r library; do
        install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done
    mkdir -p "$root/etc"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    echo 'holdfast:x:65532:65532::/nonexistent:/usr/sbin/nologin' >"$root/etc/passwd"
    install -D -m 644 LICENSE "$root/usr/share/doc/holdfast-controller/LICENSE"
}

pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -C "$1" -cf - "${@:2}"; }

# Moves a file among the blobs; prints its descriptor.
blob() {
    local media_type=$1 file=$2 digest
    digest=$(sha256sum "$file" | cut -d ' ' -f 1)
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$media_type" "$digest" "$(stat -c %s "$file")"
    mv "$file" "$blobs/$digest"
}

write_layout() {
    local layer config manifest diff_id oci=application/vnd.oci.image
    pack "$root" . >"$work/layer.tar"
    diff_id=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
    gzip -n "$work/layer.tar"
    layer=$(blob $oci.layer.v1.tar+gzip "$work/layer.tar.gz")
    cat >"$work/config" <<JSON
{"created":"1970-01-01T00:00:00Z","architecture":"$arch","os":"linux","config":{"User":"$user","Entrypoint":["/usr/bin/holdfast-controller"],"Cmd":["run"],"Labels":{"org.opencontainers.image.version":"$version","org.opencontainers.image.licenses":"Apache-2.0"}},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
    config=$(blob $oci.config.v1+json "$work/config")
    printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' \
        $oci.manifest.v1+json "$config" "$layer" >"$work/manifest"
    manifest=$(blob $oci.manifest.v1+json "$work/manifest")
    # The first annotation is read by skopeo and podman, the second by containerd.
    printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"org.opencontainers.image.ref.name":"%s","io.containerd.image.name":"%s"}}]}' \
        "${manifest%\}}" "$version" "$name" >"$work/layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
}

mkdir -p "$blobs"
fill_root
write_layout
pack "$work/layout" oci-layout index.json blobs >"$work/image.tar"
mkdir -p "$(dirname "$out")"
rm -rf "$out"
cp -r "$work/layout" "$out"
cp "$work/image.tar" "$out.tar"
echo "image: $name in $out and $out.tar" >&2
