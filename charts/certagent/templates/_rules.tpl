{{/* A duration of the configuration (500ms, 30s, 5m, 24h, 7d) in whole seconds. */}}
{{- define "certagent.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[a-z]+$" .)) | ceil | int64 -}}
{{- end }}

{{/* The names of the bundles of a kind, as a regular expression. Takes the configuration and the kind. */}}
{{- define "certagent.bundlesOf" -}}
{{- $names := list -}}
{{- range .config.bundles -}}
{{- if eq $.kind (.kind | default "ca") }}{{ $names = append $names (.name | replace "." "\\\\.") }}{{ end -}}
{{- end -}}
{{- join "|" $names -}}
{{- end }}
