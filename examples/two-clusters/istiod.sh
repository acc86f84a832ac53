#!/bin/sh
# Installs istiod with its CA from Vault: istiod.sh CLUSTER...   (VAULT_ADDR, IMAGE)
set -eu
[ $# -gt 0 ] || { echo "usage: $0 CLUSTER..." >&2; exit 64; }
cd "$(dirname "$0")"
mkdir -p out
export CERTAGENT_VAULT_AUTH_METHOD=jwt CERTAGENT_VAULT_ROLE=istiod CERTAGENT_LOG_FORMAT=json
for cluster in "$@"; do
  export CERTAGENT_SOURCE="vault:kubernetes-$cluster-secrets/istiod-service/certs"
  export CERTAGENT_VAULT_AUTH_MOUNT="kubernetes-$cluster"
  certagent overlay istiod --image "$IMAGE" > "out/$cluster-values.yaml"
  helm upgrade --install istiod istio/istiod --kube-context "$cluster" -n istio-system \
    -f "out/$cluster-values.yaml" \
    --set global.meshID=mesh1 --set "global.multiCluster.clusterName=$cluster" \
    --set "global.network=$cluster"
done
