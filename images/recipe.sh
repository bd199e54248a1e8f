# What every image's build.sh shares; sourced after setting $image, the image's name.
#
# An image is named by the hash of its recipe (its folder and this file), so a changed recipe
# is a new file and an unchanged one is never built twice.
# shellcheck shell=bash

images=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOLDFAST_CACHE:-$HOME/.cache/holdfast}/images

say() { printf 'image %s: %s (%d s)\n' "$image" "$1" "$SECONDS" >&2; }
refuse() { printf 'image %s: %s\n' "$image" "$1" >&2; exit 1; }

recipe_hash() {
    (cd "$images" && find recipe.sh "$image" -type f | LC_ALL=C sort | xargs -d '\n' sha256sum) |
        sha256sum | cut -c 1-12
}

image_path() { echo "$cache/$image-$(recipe_hash).qcow2"; }

need_tools() {
    local tool
    for tool; do
        command -v "$tool" >/dev/null || refuse "the program $tool is missing; run tests/peers/packages.sh, which installs what the images need"
    done
}

download() {
    local into=$1
    shift
    (cd "$into" && apt-get -qq download "$@") 2> >(grep -v '^W: Download is performed unsandboxed' >&2)
}

# Downloads packages of this machine's own Debian and unpacks them into a folder; installs nothing.
unpack_packages() {
    local into=$1 debs
    shift
    debs=$(mktemp -d "$work/debs.XXXXXX")
    chmod 755 "$work" "$debs" # apt's own user fetches into it
    # A list may be missing, or name a version that the mirror has replaced since.
    download "$debs" "$@" 2>/dev/null || { apt-get -qq update && download "$debs" "$@"; } ||
        refuse "apt-get could not download $*; what it said stands above"
    local deb
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$into"; done
    rm -rf "$debs"
}

# A partition's content is a file; this writes it to its place in the disk, holes kept.
write_partition() {
    local disk=$1 content=$2 first_sector=$3
    dd if="$content" of="$disk" bs=64K seek="$((first_sector * 512))" oflag=seek_bytes \
        conv=notrunc,sparse status=none
}

# Converts the finished raw disk and moves it into the cache, digest first: an image that is
# there is complete, whatever happened on the way.
publish() {
    local raw=$1 path
    path=$(image_path)
    qemu-img convert -f raw -O qcow2 "$raw" "$work/image.qcow2"
    (cd "$work" && sha256sum image.qcow2 | sed "s/image\.qcow2/${path##*/}/") >"$work/sha256"
    mv "$work/sha256" "$path.sha256"
    mv "$work/image.qcow2" "$path"
    ln -sfn "${path##*/}" "$cache/$image.qcow2"
    say "built $path"
}

is_built() {
    [ -e "$(image_path)" ] || return 1
    ln -sfn "$(basename "$(image_path)")" "$cache/$image.qcow2"
}

# Runs build_image in a working folder that goes away, unless the image is there already.
# Of several at once, one builds and the others wait for it.
main() {
    case ${1:-} in
        --path) image_path; return ;;
        "") ;;
        *) refuse "\"$1\" is no option; give none to build, or --path to learn where the image is" ;;
    esac
    is_built && return
    mkdir -p "$cache"
    exec 9>"$cache/.lock-$image"
    flock 9
    is_built && return
    rm -rf "$cache/.build-$image".* # what a killed build left
    work=$(mktemp -d "$cache/.build-$image.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    build_image
}
