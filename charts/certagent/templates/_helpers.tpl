{{/* What the chart's resources are called. Takes the values and the release's name. */}}
{{- define "certagent.fullname" -}}
{{- $name := ternary .release (printf "%s-certagent" .release) (contains "certagent" .release) -}}
{{- .values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/*
The name, namespace and labels of one of the chart's own resources. Takes the chart's root, what the
name ends in, and labels of the operator's, which win over the chart's own.
*/}}
{{- define "certagent.metadata" -}}
{{- $own := dict "app.kubernetes.io/name" "certagent" "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service -}}
name: {{ printf "%s%s" (include "certagent.fullname" (dict "values" .root.Values "release" .root.Release.Name)) .suffix | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- merge dict (.labels | default dict) $own | toYaml | nindent 2 }}
{{- end }}

{{/* The image, by its digest where there is one. Takes the image's values. */}}
{{- define "certagent.image" -}}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else -}}
{{- printf "%s:%s" .repository (.tag | required "certagent.image.tag: name a tag, or a digest (certagent.image.digest)") -}}
{{- end -}}
{{- end }}

{{/* The port of probes and metrics. Takes the values. */}}
{{- define "certagent.port" -}}
{{- regexFind "[0-9]+$" (dig "server" "address" ":9089" .config) -}}
{{- end }}

{{/*
The values of the including chart, as JSON. What would not work in a pod fails here, with its key.
Takes the including chart's root.
*/}}
{{- define "certagent.values" -}}
{{- $values := .Values.certagent | required "There is no .Values.certagent: have the chart certagent as a dependency of that name, or give all its values there." -}}
{{- include "certagent.checkNames" $values -}}
{{- include "certagent.checkPaths" $values -}}
{{- include "certagent.checkTokens" $values -}}
{{- include "certagent.checkServer" $values -}}
{{- toJson $values -}}
{{- end }}

{{/* Volumes have names of their own: none that is given twice, and none that Istio's pods have. */}}
{{- define "certagent.checkNames" -}}
{{- $istios := list "cacerts" "credential-socket" "istio-csr-ca-configmap" "istio-csr-dns-cert" "istio-data" "istio-envoy" "istio-kubeconfig" "istio-podinfo" "istio-token" "istiod-ca-cert" "local-certs" "workload-certs" "workload-socket" -}}
{{- $taken := list "certagent-config" -}}
{{- $values := . -}}
{{- range $key := list "outputs" "tokens" "extraVolumes" -}}
{{- range $index, $volume := get $values $key | default list -}}
{{- $at := printf "certagent.%s[%d].name" $key $index -}}
{{- if has $volume.name $istios }}{{ fail (printf "%s: %s is a volume of Istio's own; choose another name" $at $volume.name) }}{{ end -}}
{{- if has $volume.name $taken }}{{ fail (printf "%s: there is a volume %s already" $at $volume.name) }}{{ end -}}
{{- $taken = append $taken $volume.name -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What is published lies on a volume: the root of the agent's file system is read-only. */}}
{{- define "certagent.checkPaths" -}}
{{- $istios := list "/etc/cacerts" "/etc/istio/pod" "/etc/istio/proxy" "/var/lib/istio/data" "/var/run/secrets/credential-uds" "/var/run/secrets/istio" "/var/run/secrets/istio-dns" "/var/run/secrets/istiod/ca" "/var/run/secrets/istiod/tls" "/var/run/secrets/kubernetes.io/serviceaccount" "/var/run/secrets/remote" "/var/run/secrets/tokens" "/var/run/secrets/workload-spiffe-credentials" "/var/run/secrets/workload-spiffe-uds" -}}
{{- $values := . -}}
{{- range $index, $output := $values.outputs -}}
{{- range $istios -}}
{{- if or (include "certagent.liesOn" (dict "path" $output.mountPath "mounts" (list (dict "mountPath" .)))) (include "certagent.liesOn" (dict "path" . "mounts" (list $output))) -}}
{{- fail (printf "certagent.outputs[%d].mountPath: %s meets Istio's own %s: publish elsewhere, such as to /etc/istio-ca" $index $output.mountPath .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $mounts := list -}}
{{- range $key := list "outputs" "tokens" "extraVolumeMounts" -}}
{{- range $index, $mount := get $values $key | default list -}}
{{- $path := clean $mount.mountPath -}}
{{- if has $path (append $mounts "/etc/certagent-config") }}{{ fail (printf "certagent.%s[%d].mountPath: something is mounted at %s already" $key $index $path) }}{{ end -}}
{{- $mounts = append $mounts $path -}}
{{- end -}}
{{- end -}}
{{- range $index, $bundle := $values.config.bundles -}}
{{- if not (include "certagent.liesOn" (dict "path" $bundle.output.directory "mounts" $values.outputs)) -}}
{{- fail (printf "certagent.config.bundles[%d].output.directory: %s lies on none of certagent.outputs" $index $bundle.output.directory) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The token of each login that a bundle needs is mounted. */}}
{{- define "certagent.checkTokens" -}}
{{- $config := .config -}}
{{- $mounts := concat (.tokens | default list) (.extraVolumeMounts | default list) (list (dict "mountPath" "/var/run/secrets/kubernetes.io/serviceaccount")) -}}
{{- $needed := dict -}}
{{- range $config.bundles -}}
{{- if or (hasKey .source "vaultKV") (hasKey .source "vaultPKI") }}{{ $_ := set $needed "vault.auth" (dig "vault" "auth" dict $config) }}{{ end -}}
{{- if hasKey .source "azureKeyVault" }}{{ $_ := set $needed "azure.credential" (dig "azure" "credential" dict $config) }}{{ end -}}
{{- end -}}
{{- range $key, $login := $needed -}}
{{- /* A credential of Azure's may be its name alone. */ -}}
{{- $token := kindIs "map" $login | ternary $login dict | dig "tokenFile" "" -}}
{{- if and $token (not (include "certagent.liesOn" (dict "path" $token "mounts" $mounts))) -}}
{{- fail (printf "certagent.config.%s.tokenFile: %s lies on none of certagent.tokens and certagent.extraVolumeMounts" $key $token) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* "yes" where a path lies on one of the mounts. */}}
{{- define "certagent.liesOn" -}}
{{- $path := clean .path -}}
{{- range .mounts -}}
{{- if hasPrefix (printf "%s/" (clean .mountPath)) (printf "%s/" $path) }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/* kubelet asks at the pod's own address. */}}
{{- define "certagent.checkServer" -}}
{{- $address := dig "server" "address" ":9089" .config -}}
{{- if not $address }}{{ fail "certagent.config.server.address: it is switched off, and kubelet could not ask whether a set is published" }}{{ end -}}
{{- $port := regexFind ":[0-9]{1,5}$" $address | trimPrefix ":" | default "0" | int -}}
{{- if or (lt $port 1) (gt $port 65535) }}{{ fail (printf "certagent.config.server.address: expected HOST:PORT or :PORT, got %s" $address) }}{{ end -}}
{{- if and (ge $port 15000) (lt $port 15100) }}{{ fail (printf "certagent.config.server.address: Istio's own pods listen at ports such as %d" $port) }}{{ end -}}
{{- if regexMatch "^(127[.]|localhost:|\\[::1\\])" $address }}{{ fail (printf "certagent.config.server.address: kubelet asks at the pod's own address, and %s is loopback" $address) }}{{ end -}}
{{- end }}
