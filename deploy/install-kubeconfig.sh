#!/usr/bin/env bash
# Prints the kubeconfig of the install credential: it can ask for a node to be let in, and nothing else.
#
#   install-kubeconfig.sh https://ADDRESS:6443
#
# ADDRESS is where the nodes reach the API server. Uses kubectl, or k3s kubectl, with your own kubeconfig.
set -euo pipefail

server=${1:-}
[[ $server == https://* ]] || { echo "install-kubeconfig: name the address of the API server, such as https://192.0.2.10:6443" >&2; exit 1; }
kubectl=(kubectl)
command -v kubectl >/dev/null || kubectl=(k3s kubectl)

secret() { "${kubectl[@]}" -n holdfast-system get secret holdfast-install -o "jsonpath={.data.$1}"; }

authority=$(secret 'ca\.crt')
token=$(secret token | base64 -d)
[ -n "$authority" ] && [ -n "$token" ] || { echo "install-kubeconfig: the Secret holdfast-install holds no token yet; apply install.yaml and try again in a second" >&2; exit 1; }
cat <<YAML
apiVersion: v1
kind: Config
current-context: holdfast
clusters:
- name: holdfast
  cluster: {server: "$server", certificate-authority-data: $authority}
users:
- name: install
  user: {token: $token}
contexts:
- name: holdfast
  context: {cluster: holdfast, user: install}
YAML
