"""Annotations of vault-agent's injector, and the files that they stand in.

annotations(role="other")                  # a good set of 12, with one that differs
annotations({"agent-init-first": None})    # … without one
values(annotations())                      # a chart's values, as YAML
deployment(annotations())                  # a Deployment, as `kubectl get -o yaml` prints it
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from certagent.cli.migration.annotations import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

ARTICLES = Path(__file__).parent / "articles"
ADDRESS = "https://vault.example.com:8200"
PATH = "kv/istiod/certs"
CA = {
    "ca-key.pem": "ca_key",
    "ca-cert.pem": "ca_cert",
    "root-cert.pem": "root_cert",
    "cert-chain.pem": "cert_chain",
}
TLS = {"tls.key": "tls_key", "tls.crt": "tls_cert"}

FORMS = (
    '{{- with secret "kv1/certs" -}}\n{{ .Data.ca_key }}\n{{ end -}}',
    '{{ with secret "kv1/certs" }}{{ .Data.ca_key }}{{ end }}\n',
    '{{with secret "kv1/certs"}}{{.Data.ca_key}}{{end}}',
    "{{ with secret `kv1/certs` }}{{- .Data.ca_key -}}{{- end -}}",
    '{{\n  with secret "kv1/certs"\n}}\t{{ .Data.ca_key }}\r\n{{ end }}',
    '{{- with secret "kv2/data/certs" -}}{{ .Data.data.ca_key }}{{- end }}',
    '{{- with secret "kv2/certs" -}}{{ .Data.data.ca_key }}{{- end }}',
    '{{ with $s := secret "kv1/certs" }}{{ $s.Data.ca_key }}{{ end }}',
    '{{ with $s := secret "kv1/certs" }}{{ .Data.ca_key }}{{ end }}',
    '{{ (secret "kv1/certs").Data.ca_key }}',
    '{{ ((secret "kv2/data/certs").Data.data.ca_key) }}',
    '{{/* istiod\'s "key" }} */}}{{ with secret "kv1/certs" }}{{ .Data.ca_key }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{- /* the key */ -}}{{ .Data.ca_key }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ index .Data "ca-key" }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ (index .Data "ca-key") }}{{ end }}',
    '{{ with secret "kv2/data/certs" }}{{ index .Data.data "ca-key" }}{{ end }}',
    '{{ with secret "kv2/data/certs" }}{{ index .Data "data" "ca-key" }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ .Data.ca_key | trimSpace }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ .Data.ca_key | trimSuffix "\\n" }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ .Data.ca_key | trim " \\t\\r\\n" | trimSpace }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ trimSpace .Data.ca_key }}{{ end }}',
    '{{ with secret "kv1/certs" }}{{ .Data.ca_key | sprig_trim }}{{ end }}',
)
"""The forms of a template that print one field, as a real agent takes them too."""


def template(field: str, path: str = PATH) -> str:
    """The article's template, which prints one field of a KV v1 secret."""
    return f'{{{{- with secret "{path}" -}}}}\n{{{{ .Data.{field} }}}}\n{{{{ end -}}}}'


def annotations(
    changes: Mapping[str, object] | None = None, *, files: Mapping[str, str] = CA, **more: object
) -> dict[str, object]:
    """A good set, with changes by name (without the prefix); None takes one out."""
    given: dict[str, object] = {
        "agent-inject": "true",
        "agent-init-first": "true",
        "role": "istiod",
        "auth-path": "auth/kubernetes-cluster1",
        "service": ADDRESS,
    }
    for file, field in files.items():
        given[f"agent-inject-secret-{file}"] = PATH
        given[f"agent-inject-template-{file}"] = template(field)
    given |= {**(changes or {}), **more}
    return {f"{PREFIX}{name}": value for name, value in given.items() if value is not None}


def values(given: Mapping[str, object], **beside: object) -> str:
    """A chart's values with these annotations."""
    return yaml.safe_dump({"podAnnotations": dict(given), **beside}, sort_keys=False)


def pod_template(given: Mapping[str, object], **spec: object) -> dict[str, Any]:
    """A pod with these annotations, whose one container is istiod's."""
    return {
        "metadata": {"annotations": dict(given), "labels": {"app": "istiod"}},
        "spec": {"containers": [{"name": "discovery", "image": "pilot"}], **spec},
    }


def deployment(given: Mapping[str, object], **spec: object) -> dict[str, Any]:
    """istiod's Deployment, with these annotations on its pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "istiod-1-28", "namespace": "istio-system"},
        "spec": {"replicas": 2, "template": pod_template(given, **spec)},
    }
