{{/*
The agent, for any chart that has this one as a dependency. Each takes the including chart's root,
reads .Values.certagent there, and prints a list at column 0:

    initContainers:
      {{- include "certagent.nativeSidecar" . | nindent 6 }}

nativeSidecar: starts before the containers, and stays (Kubernetes 1.29). Before that, initContainer
publishes once before the containers start, and sidecar stays beside them.
*/}}

{{- define "certagent.nativeSidecar" -}}
{{- if semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "certagent.nativeSidecar needs Kubernetes 1.29 (this is %s): include certagent.initContainer and certagent.sidecar instead." .Capabilities.KubeVersion.Version) }}
{{- end -}}
{{- include "certagent.container" (dict "root" . "name" "certagent" "verb" "run" "restartPolicy" "Always" "probes" (list "startup" "liveness")) -}}
{{- end }}

{{- define "certagent.initContainer" -}}
{{- include "certagent.container" (dict "root" . "name" "certagent-init" "verb" "init" "probes" list) -}}
{{- end }}

{{- define "certagent.sidecar" -}}
{{- include "certagent.container" (dict "root" . "name" "certagent" "verb" "run" "probes" (list "startup" "liveness" "readiness")) -}}
{{- end }}

{{/* One container. Takes the root, its name, the verb, its probes, and its restartPolicy if any. */}}
{{- define "certagent.container" -}}
{{- $values := include "certagent.values" .root | fromJson -}}
{{- $port := include "certagent.port" $values -}}
- name: {{ .name }}
  image: {{ include "certagent.image" $values.image | quote }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args: [{{ .verb }}, --config, /etc/certagent-config/certagent.yaml]
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  env:
  {{- with $values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- /* The agent does not read it: a new configuration makes new pods. */}}
  - name: CONFIG_SHA256
    value: {{ toYaml $values.config | sha256sum | quote }}
  {{- if eq .verb "run" }}
  ports:
  - {name: certagent, containerPort: {{ $port }}, protocol: TCP}
  {{- end }}
  {{- range .probes }}
  {{ . }}Probe:
    httpGet: {path: {{ ternary "/livez" "/readyz" (eq . "liveness") }}, port: {{ $port }}}
    {{- with get $values (printf "%sProbe" .) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with $values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  {{- range $values.outputs }}
  - {name: {{ .name | quote }}, mountPath: {{ .mountPath | quote }}}
  {{- end }}
  - {name: certagent-config, mountPath: /etc/certagent-config, readOnly: true}
  {{- range $values.tokens }}
  - {name: {{ .name | quote }}, mountPath: {{ .mountPath | quote }}, readOnly: true}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The reader's mounts: what is published, and it may not write there. */}}
{{- define "certagent.readerMounts" -}}
{{- $values := include "certagent.values" . | fromJson -}}
{{- range $index, $output := $values.outputs }}
{{- if $index }}{{ "\n" }}{{ end -}}
- {name: {{ .name | quote }}, mountPath: {{ .mountPath | quote }}, readOnly: true}
{{- end }}
{{- end }}

{{/* The pod's volumes. */}}
{{- define "certagent.volumes" -}}
{{- $values := include "certagent.values" . | fromJson -}}
- name: certagent-config
  configMap: {name: {{ include "certagent.fullname" (dict "values" $values "release" .Release.Name) | quote }}}
{{- range $values.outputs }}
- name: {{ .name | quote }}
  emptyDir: {medium: Memory, sizeLimit: {{ .sizeLimit }}}
{{- end }}
{{- range $values.tokens }}
- name: {{ .name | quote }}
  projected:
    sources:
    - serviceAccountToken: {path: {{ .path | quote }}, audience: {{ .audience | quote }}, expirationSeconds: {{ .expirationSeconds | int }}}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
