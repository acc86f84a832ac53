{{/* A duration of the configuration (500ms, 30s, 5m, 24h, 7d) in whole seconds. */}}
{{- define "certagent.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[a-z]+$" .)) | ceil | int64 -}}
{{- end }}

{{/* The names of bundles as a regular expression, in a string of PromQL. Takes the bundles. */}}
{{- define "certagent.names" -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names (.name | replace "." "\\\\.") }}{{ end -}}
{{- join "|" $names -}}
{{- end }}
