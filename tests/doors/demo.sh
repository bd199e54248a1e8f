#!/usr/bin/env bash
# The demo: a site on this machine with one virtual machine in it. Its parts lie in tests/src/demo.
#
#   demo.sh up | ssh VM | env | status | down
set -euo pipefail
source "$(dirname "$0")/stage.sh"

site=target/debug/holdfast-site
folder=${HOLDFAST_SITE_DIR:-$PWD/.demo}
given=${HOLDFAST_KUBECONFIG:-}
[ -n "$given" ] || unset HOLDFAST_KUBECONFIG

# Cold, on two cores. Each part says so only while it is still to be done.
announce() {
    local packages minutes=1
    packages=$(tests/peers/packages.sh --missing | paste -sd ' ')
    [ -z "$packages" ] || minutes=$((minutes + 3))
    [ -n "$given" ] || peers_built || minutes=$((minutes + 12))
    image_built debian || minutes=$((minutes + 3))
    [ -x "$site" ] || minutes=$((minutes + 8))
    is_up || minutes=$((minutes + 4))
    cat >&2 <<TEXT
This brings up a Holdfast site on this machine and runs examples/vm.yaml on it.
  time       about $minutes minutes from here on two cores
  root       yes: it makes network, mount and process namespaces, and works inside them
  packages   ${packages:-none to add}${packages:+ (installed now and kept; no service of them is started or enabled)}
  builds     $([ -n "$given" ] && echo images || echo peers and images) in $cache, binaries in target/ (kept)
  site       everything else in $folder; \`make demo-down\` removes it
$(announce_cluster)
TEXT
}

announce_cluster() {
    if [ -z "$given" ]; then
        echo "Your own libvirt, networks, kubeconfig and Kubernetes contexts stay as they are."
        return
    fi
    cat <<TEXT
  cluster    that of $given gets Holdfast's kinds, admission policies, roles and the namespace holdfast-system, and
             the demo's objects in the namespace default; \`make demo-down\` removes all of them, and every virtual
             machine that anybody made there meanwhile
Your own libvirt and networks stay as they are.
TEXT
}

is_up() {
    local said
    said=$([ ! -x "$site" ] || [ ! -e "$folder" ] || "$site" status 2>/dev/null) && [[ $said == *" is up"$'\n'* ]]
}

build() {
    stage "packages"
    tests/peers/packages.sh
    need_fresh_cluster
    stage "peers: the API server and its store, built from Go modules (10 minutes when cold)"
    [ -n "$given" ] || tests/peers/build.sh kubernetes kine
    stage "binaries (6 minutes when cold)"
    cargo build --locked --workspace --bins
    stage "image debian-13: Debian with its own cloud-init (2 minutes when cold)"
    images/debian/build.sh
    images/tiny/build.sh
}

# The site's own check (tests/src/demo/given.rs) decides; this one only spares the wait for the builds.
need_fresh_cluster() {
    [ -n "$given" ] && [ ! -e "$folder" ] || return 0
    local kinds
    kinds=$(kubectl --kubeconfig "$given" get customresourcedefinitions --output=name) ||
        refuse "the cluster of $given does not say which kinds it has; see that kubectl can list customresourcedefinitions with that file"
    [[ $kinds != *.holdfast.dev* ]] ||
        refuse "the cluster of $given has Holdfast already; give one that has not, or see docs/two-hosts-and-k3s.md to add a host to this one"
}

apply() {
    eval "$("$site" env)"
    stage "kubectl apply -f examples/vm.yaml"
    kubectl apply -f examples/vm.yaml
    await Ready 300s
    stage "waiting for its address (the guest boots; emulated, that takes two minutes)"
    await AddressKnown 600s
    kubectl get hvm
    stage "ssh: cloud-init status --wait"
    "$site" ssh web -- cloud-init status --wait
}

# Says why when it does not come: the machine's conditions and events name the reason.
await() {
    kubectl wait --for="condition=$1" --timeout="$2" hvm/web || {
        kubectl describe hvm web >&2
        refuse "the virtual machine did not become $1; its conditions and events above say why. The site stays up, its logs lie in $folder; \`make demo-down\` removes it"
    }
}

next() {
    stage "the site is up and stays up"
    cat >&2 <<'TEXT'
What to try next:
  make demo-ssh                                      into the guest
  eval "$(make -s demo-env)"                         kubectl, terraform and tofu speak to the site in this shell
  kubectl get hvm,hnode,hvmi,hvmn,hkey               what is there
  kubectl describe hvm web                           its events tell the story
  kubectl explain hvm.spec                           the manual of every field
  kubectl patch hvm web --type=merge -p '{"spec":{"runStrategy":"Halted"}}'
  kubectl patch hvm web --type=merge -p '{"spec":{"cpu":2}}'     then look at status.pendingChanges
  terraform -chdir=examples/terraform/vm init        then apply; examples/terraform/vm/README.md says what
  make demo-down                                     remove it all
TEXT
}

up() {
    need_root "the demo"
    need_cargo
    [ -z "$given" ] || [ -r "$given" ] || refuse "HOLDFAST_KUBECONFIG is $given, which cannot be read; name a kubeconfig, or unset it for a control plane of the demo's own"
    announce
    build
    stage "the site: control plane, controller, one host with its node daemon"
    "$site" up
    apply
    next
}

down() {
    [ -e "$folder" ] || { stage "no demo is up: there is nothing in $folder"; return; }
    need_root "taking the demo down"
    [ -x "$site" ] || refuse "$site is missing; build it with: cargo build --workspace --bins"
    "$site" down
    stage "the demo is down; packages stay, and what was built in $cache and target/"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    ssh | env | status)
        [ -x "$site" ] && [ -e "$folder" ] || refuse "no site is up; start one with make demo"
        exec "$site" "$@"
        ;;
    *) refuse "use up, ssh VM, env, status or down" ;;
esac
