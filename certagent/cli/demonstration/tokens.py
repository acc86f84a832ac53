"""A cluster's issuer of projected service-account tokens, as Vault's `jwt` login sees one.

In a cluster, kube-apiserver signs them and kubelet puts them into the pod; Vault gets the issuer's
public key once. So the demo needs no cluster.
"""

from __future__ import annotations

import base64
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certagent.cli.demonstration.operator import AUDIENCE, SUBJECT

_LIFETIME = 12 * 3600  # seconds: as long as somebody may play with `--keep`
_COORDINATE = 32  # bytes of R and of S on P-256


class TokenIssuer:
    """Signs the tokens of one cluster with a key of its own."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """The PEM that a login mount checks tokens with."""
        public = self._key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def mint(self) -> str:
        """Return a token of `istio-system/istiod` for Vault (RFC 7515; ES256 of RFC 7518, 3.4)."""
        now = int(time.time())
        account = {"name": "istiod", "uid": f"{self._cluster}-istiod"}
        claims = {
            "iss": f"https://kubernetes.default.svc.{self._cluster}.local",
            "sub": SUBJECT,
            "aud": [AUDIENCE],
            "iat": now,
            "nbf": now,
            "exp": now + _LIFETIME,
            "kubernetes.io": {"namespace": "istio-system", "serviceaccount": account},
        }
        parts = ({"alg": "ES256", "typ": "JWT"}, claims)
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
        return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
