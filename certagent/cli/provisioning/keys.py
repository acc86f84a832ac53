"""The public keys of a cluster's token issuer, as clusters and as people hand them out."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

_PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}


def public_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a JWKS (RFC 7517) or of PEM text, each as PEM.

    A JWKS is what `kubectl get --raw /openid/v1/jwks` prints. Raises `ValueError` with what is
    wrong.
    """
    if "PRIVATE KEY" in text:
        raise ValueError("it holds a private key, which nobody but the cluster may have")
    try:
        keys = _jwks(text) if text.lstrip().startswith("{") else _pem(text)
    except (UnsupportedAlgorithm, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a key in it cannot be read ({type(error).__name__})") from None
    if not keys:
        raise ValueError("it holds no public key: expected a JWKS, or PEM with BEGIN PUBLIC KEY")
    return tuple(
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for key in keys
    )


def _pem(text: str) -> list[Any]:
    try:
        return [load_pem_public_key(block.encode()) for block in _PUBLIC.findall(text)]
    except ValueError:
        # cryptography's own words are about passwords as well.
        raise ValueError("a block of its PEM is no public key") from None


def _jwks(text: str) -> list[rsa.RSAPublicKey | ec.EllipticCurvePublicKey]:
    document = json.loads(text)
    return [_jwk(key) for key in document["keys"] if key.get("use", "sig") == "sig"]


def _jwk(key: dict[str, str]) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return one key (RFC 7518, section 6)."""
    if key["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key()
    if key["kty"] == "EC":
        numbers = _number(key["x"]), _number(key["y"])
        return ec.EllipticCurvePublicNumbers(*numbers, _CURVES[key["crv"]]()).public_key()
    raise ValueError(f"Vault takes RSA and EC keys, not {key['kty'][:20]!r}")


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
