#!/bin/sh
# Makes and stores the CA of clusters under one root: ca.sh CLUSTER...   (VAULT_ADDR, VAULT_TOKEN)
set -eu
[ $# -gt 0 ] || { echo "usage: $0 CLUSTER..." >&2; exit 64; }
cd "$(dirname "$0")"
umask 077
[ -e out/mesh-ca/root-cert.pem ] || certagent ca root --out out/mesh-ca
for cluster in "$@"; do
  if [ ! -e "out/mesh-ca/$cluster/ca-cert.pem" ]; then
    certagent ca intermediate --root out/mesh-ca --out out/mesh-ca "$cluster"
  fi
  certagent push "vault:kubernetes-$cluster-secrets/istiod-service/certs" --from "out/mesh-ca/$cluster"
done
