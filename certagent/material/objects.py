"""Sets that a store holds as one object: PKCS #12, PEM with key and certificates, or JSON.

What comes out are parts as other stores hold them, and nothing is said about them yet.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from certagent.errors import MaterialRefused
from certagent.material import pem
from certagent.material.certificates import Certificate, Unparseable, guarded
from certagent.material.der import rounds
from certagent.material.finding import Finding, Severity
from certagent.material.keys import LABELS, PrivateKey

if TYPE_CHECKING:
    from collections.abc import Sequence

PKCS12_TYPE = "application/x-pkcs12"
PEM_TYPE = "application/x-pem-file"
"""How Key Vault tells what the secret behind a certificate object holds."""

MAX_ROUNDS = 1_000_000
"""Half a second of a core, for each of the few passwords of a PKCS #12; 2,000 are usual, and up to
four billion can be asked for."""

_CERTIFICATE = "CERTIFICATE"


@dataclass(frozen=True, slots=True)
class CertificateObject:
    """The parts of a certificate object, as PEM: the leaf is the one that fits the key."""

    private_key: bytes = field(repr=False)
    certificate: bytes
    rest: bytes


def json_fields(text: str, name: str, example: str) -> dict[str, Any]:
    """Return the fields of a set that is stored as one JSON object; raises `MaterialRefused`."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        message = f"{name!r} is not a JSON object."
        hint = f'Store {{"{example}": "<PEM>", …}}, with each newline of the PEM as \\n.'
        raise _refused("json-unreadable", message, hint)
    return fields


def certificate_object(text: str, content_type: str, name: str) -> CertificateObject:
    """Take apart what Key Vault keeps behind a certificate object; raises `MaterialRefused`.

    That is PKCS #12 in base64, without a password, or PEM: by the certificate's policy
    (`secretProperties.contentType`).
    """
    if content_type == PEM_TYPE:
        key, certificates = _from_pem(text.encode("utf-8", "surrogatepass"))
    elif content_type == PKCS12_TYPE:
        key, certificates = _from_pkcs12(text, name)
    else:
        message = f"{name!r} has the content type {content_type[:40]!r}: no certificate object."
        hint = f"A certificate object's secret has {PKCS12_TYPE} or {PEM_TYPE}: correct the name,"
        raise _refused("object-unreadable", message, f"{hint} or use `secret` or `secrets`.")
    if key is None:
        message = f"{name!r} has no private key."
        hint = "The certificate's policy must make it exportable (keyProperties.exportable: true):"
        hint += "\ncorrect it, and have a new version issued."
        finding = Finding("part-missing", Severity.ERROR, "private_key", message, hint)
        raise MaterialRefused(message, (finding,), hint=hint)
    leaf = _leaf(certificates, key)
    rest = [each for each in certificates if each != leaf]
    return CertificateObject(
        pem.encode(key.label, key.der),
        pem.encode(_CERTIFICATE, leaf) if leaf else b"",
        b"".join(pem.encode(_CERTIFICATE, each) for each in rest),
    )


def _from_pkcs12(text: str, name: str) -> tuple[pem.Block | None, list[bytes]]:
    try:
        data = binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except ValueError:
        message = f"{name!r} is not base64, which PKCS #12 in a Key Vault is."
        hint = "Import it as a certificate (az keyvault certificate import), not as a secret."
        raise _refused("object-unreadable", message, hint) from None
    if any(count > MAX_ROUNDS for count in rounds(data)):
        message = f"{name!r} asks to hash a password more than {MAX_ROUNDS} times."
        hint = "Export it again with fewer rounds (openssl pkcs12 -iter 2048), and import that."
        raise _refused("object-unreadable", message, hint)
    try:
        return guarded(lambda: _opened(data))
    except Unparseable as error:
        message = f"{name!r} cannot be read as PKCS #12 without a password."
        hint = "Is it protected by one? Import it as a certificate, and Key Vault takes that off:\n"
        hint += "az keyvault certificate import --file … --password …"
        raise _refused("object-unreadable", message, hint) from error


def _opened(data: bytes) -> tuple[pem.Block | None, list[bytes]]:
    found = pkcs12.load_pkcs12(data, None)
    form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = pem.Block("PRIVATE KEY", found.key.private_bytes(*form)) if found.key else None
    held = [each for each in (found.cert, *found.additional_certs) if each]
    return key, [each.certificate.public_bytes(Encoding.DER) for each in held]


def _from_pem(data: bytes) -> tuple[pem.Block | None, list[bytes]]:
    blocks, findings = pem.decode(data, "certificate")
    if findings:
        raise MaterialRefused(findings[0].message, findings, hint=findings[0].hint)
    keys = [block for block in blocks if block.label in LABELS]
    certificates = [block.der for block in blocks if block.label == _CERTIFICATE]
    return (keys[0] if keys else None), certificates


def _leaf(certificates: Sequence[bytes], key: pem.Block) -> bytes:
    """Return the certificate that fits the key, or the first one where none does."""
    first = certificates[0] if certificates else b""
    try:
        wanted = PrivateKey.load(key.label, key.der).public_key_info
        fitting = [der for der in certificates if Certificate.load(der).public_key_info == wanted]
    except Unparseable:
        return first  # verification says what is wrong with it
    return fitting[0] if fitting else first


def _refused(code: str, message: str, hint: str) -> MaterialRefused:
    finding = Finding(code, Severity.ERROR, "certificate", message, hint)
    return MaterialRefused(message, (finding,), hint=hint)
