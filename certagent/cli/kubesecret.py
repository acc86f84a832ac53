"""A Kubernetes Secret on standard input, as `kubectl get secret NAME -o json` (or yaml) prints it.

Three hold a CA: `cacerts` (istiod's four files), `istio-ca-secret` (the CA that istiod made itself:
its certificate is the root, and no chain is stored), and `kubernetes.io/tls`, which also holds the
certificate of a gateway.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NoReturn

from certagent.errors import MaterialRefused, one_line
from certagent.material.bundle import tls_layout
from certagent.material.finding import Finding, Severity
from certagent.material.kinds import CA
from certagent.material.raw import CA_FILES, TLS_FILES, RawBundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from certagent.material.kinds import Kind

MAX_BYTES = 4 << 20
"""Kubernetes takes a Secret of 1 MiB; base64, and what `kubectl apply` notes, make it larger."""

CODE = "secret-unreadable"
_SELF_SIGNED = ("istio-ca-secret", "istio.io/ca-root")
_ASK = "Pipe in one Secret: `kubectl get secret -n istio-system NAME -o json`."


def read_secret(stream: BinaryIO, kind: Kind = CA) -> RawBundle:
    """Return the parts of the set in a Secret; raises `MaterialRefused`, and nothing else."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        _refuse(f"Standard input has more than {MAX_BYTES} bytes.")
    if not data.strip():
        _refuse("Standard input is empty.")
    secret = _parsed(data)
    if not isinstance(secret, dict) or secret.get("kind") != "Secret":
        kind_of = secret.get("kind") if isinstance(secret, dict) else None
        found = kind_of if isinstance(kind_of, str) else type(secret).__name__
        _refuse(f"Standard input holds no Secret, but {found[:40]!r}.")
    values = _values(secret)
    return _ca_parts(secret, values) if kind.is_ca else _tls_parts(values, kind)


def _parsed(data: bytes) -> Any:
    """Read JSON, or YAML, which needs no parser of its own in an agent."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    from certagent.config.yamltext import Unreadable, documents  # noqa: PLC0415 - JSON needs none

    try:
        (found,) = documents(data)
    except (Unreadable, ValueError) as error:
        # What the parser says may quote the text, and the text has a key in it.
        line = getattr(error, "line", None)
        at = f" (line {line})" if line else ""
        _refuse(f"Standard input is neither JSON nor YAML of one document{at}.")
    return found


def _values(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Return what a Secret holds: `data` in base64, and `stringData` over it."""
    values: dict[str, bytes] = {}
    for member in ("data", "stringData"):
        found = secret.get(member) or {}
        if not isinstance(found, dict):
            _refuse(f"The Secret's {member} is no mapping.")
        for name, value in found.items():
            if not isinstance(value, str | None):
                _refuse(f"The Secret's {member} has a value that is no text: {str(name)[:40]!r}.")
            text = (value or "").encode("utf-8", "surrogatepass")
            values[str(name)] = text if member == "stringData" else _decoded(str(name), text)
    return values


def _decoded(name: str, text: bytes) -> bytes:
    try:
        # Lines are broken in YAML that somebody wrote by hand.
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        _refuse(f"The Secret's data {name[:40]!r} is not base64.")


def _tls_parts(values: Mapping[str, bytes], kind: Kind) -> RawBundle:
    if values.keys().isdisjoint(kind.files.values()):
        held = _names(values)
        _refuse(f"The Secret holds no {kind.files['certificate']}; it has: {held}.")
    # cert-manager writes an empty ca.crt where it knows of no CA.
    given = {name: value for name, value in values.items() if value or name != kind.roots_file}
    return RawBundle.of(given, kind.files, kind.optional)


def _ca_parts(secret: Mapping[str, Any], values: Mapping[str, bytes]) -> RawBundle:
    metadata = secret.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else ""
    if "tls.crt" in values:
        tls = RawBundle.of(values, {**TLS_FILES, "chain": "tls.crt"})
        return tls_layout(tls.certificate, tls.private_key, tls.roots)
    if (name in _SELF_SIGNED or secret.get("type") in _SELF_SIGNED) and not (
        values.get(CA_FILES["chain"]) or values.get(CA_FILES["roots"])
    ):
        # istiod's own CA: loadSelfSignedCaSecret in security/pkg/pki/ca/ca.go takes ca-cert.pem
        # for the root too. Peers need the CA in the chain, as verification says of every set.
        names = dict.fromkeys(("certificate", "chain", "roots"), CA_FILES["certificate"])
        return RawBundle.of(values, {"private_key": CA_FILES["private_key"]} | names)
    if values.keys().isdisjoint(CA_FILES.values()):
        _refuse(f"The Secret holds no CA; it has: {_names(values)}.")
    # istiod takes an empty list of revocations for none.
    given = {key: value for key, value in values.items() if value or key != CA_FILES["crls"]}
    return RawBundle.of(given, CA_FILES)


def _names(values: Mapping[str, bytes]) -> str:
    return one_line(", ".join(sorted(values)), 200) or "nothing"


def _refuse(message: str) -> NoReturn:
    finding = Finding(CODE, Severity.ERROR, "secret", message, _ASK)
    raise MaterialRefused(message, (finding,), hint=_ASK)
