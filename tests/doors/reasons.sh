#!/usr/bin/env bash
# Compares the reasons of conditions that the code gives with those that docs/kinds explains; prints what differs.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

# Words in quotes that look like a reason and are none: names of kinds, types and conditions, words of libvirt and of
# certificates, parts of the event language.
readonly no_reasons=(
    CertificateSigningRequest ClusterRole ClusterRoleBinding HypervisorNode Lease NodeEnrolment Role RoleBinding
    VirtualMachine VirtualMachineImage VirtualMachineNetwork SSHKey User String ByteString HoldfastEnrolment
    Approved Denied Failed True False Unknown Known Normal Warning New
    Started Resumed Stopped ApprovalNeeded Changes Pending
)

# Files that speak other languages: XML, netlink, system calls.
sources() {
    git ls-files 'controller/src/*.rs' 'node-daemon/src/*.rs' |
        grep -vE '(^|/|_)tests?(\.rs|/)|/libvirt/|config/|golden|model.rs|accelerator/|image/raw.rs'
}

given() {
    sources | xargs grep -hoE '"[A-Z][A-Za-z]*[a-z][A-Za-z]*"' | tr -d '"' | sort -u |
        grep -vxF "$(printf '%s\n' "${no_reasons[@]}")"
}

explained() { grep -hE '^\|' docs/kinds/*.md | cut -d '|' -f 2 | grep -oE '`[A-Z][A-Za-z0-9]+`' | tr -d '`' | sort -u; }

words() { sources | xargs grep -hoE '"[A-Z][A-Za-z0-9]+"' | tr -d '"' | sort -u; }
# The first column of docs/kinds also names conditions and strategies.
others() { grep -hoE '= "[A-Z][A-Za-z]+"' api/src/condition.rs | tr -d '= "'; printf '%s\n' Always RerunOnFailure Once; }

missing=$(comm -23 <(given) <(explained))
stale=$(comm -23 <(explained) <({ words; others; } | sort -u))
[ -z "$missing" ] || printf 'reasons: the code gives %s, and docs/kinds does not explain it\n' $missing >&2
[ -z "$stale" ] || printf 'reasons: docs/kinds explains %s, and the code does not give it\n' $stale >&2
[ -z "$missing$stale" ]
