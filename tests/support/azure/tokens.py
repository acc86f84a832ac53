"""What proves who somebody is: service-account tokens, signed assertions, access tokens."""

from __future__ import annotations

import base64
import functools
import json
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.tokenreview import sign_jwt

if TYPE_CHECKING:
    from tests.support.azure.clouds import Clock

EXCHANGE = "api://AzureADTokenExchange"
"""The audience that Entra ID wants of a token that it is to trust (workload identity)."""

ISTIOD = "system:serviceaccount:istio-system:istiod"
ISSUER = "https://westeurope.oic.prod-aks.azure.com/tenant/cluster/"
LIFETIME = 3599
"""Seconds that an access token holds, as Entra ID says it."""


@functools.cache
def signing_key() -> rsa.RSAPrivateKey:
    """Return the key of the tests' cluster: RSA keys are slow to make."""
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Issuer:
    """A cluster's OIDC issuer: who signs the tokens that are projected into its pods."""

    url: str = ISSUER
    key: rsa.RSAPrivateKey = field(default_factory=signing_key, repr=False)

    def mint(
        self, subject: str = ISTIOD, *, audience: str = EXCHANGE, expires_in: float = 3600
    ) -> str:
        """Return a projected service-account token; `expires_in` (seconds) may be negative."""
        now = int(time.time())
        issued = now - 7200 if expires_in < 0 else now
        claims: dict[str, object] = {
            "iss": self.url,
            "sub": subject,
            "aud": [audience],
            "iat": issued,
            "nbf": issued,
            "exp": int(now + expires_in),
        }
        return sign_jwt(self.key, claims)


class Assertion(NamedTuple):
    """A JWT that has been read, not yet believed (RFC 7523)."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, text: str) -> Assertion:
        """Take a JWT apart; ValueError where it is none."""
        header, claims, signature = text.split(".")
        parts = [json.loads(decode(part)) for part in (header, claims)]
        return cls(*parts, f"{header}.{claims}".encode(), decode(signature))

    @property
    def audiences(self) -> list[str]:
        """Whom it is for."""
        aud = self.claims.get("aud", [])
        return [aud] if isinstance(aud, str) else aud

    def signed_by(self, key: rsa.RSAPublicKey) -> bool:
        """Whether the key's owner signed it, with RS256 or PS256 (RFC 7518)."""
        digest = hashes.SHA256()
        salted = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        schemes = {"RS256": padding.PKCS1v15(), "PS256": salted}
        try:
            key.verify(self.signature, self.signed, schemes[self.header["alg"]], digest)
        except (InvalidSignature, KeyError):
            return False
        return True


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(eq=False)
class Principal:
    """Who may be given permissions; `tenant` is its directory's id."""

    tenant: str
    client_id: str
    object_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def caller(self) -> str:
        """How Key Vault writes it in what it refuses."""
        issuer = f"https://sts.windows.net/{self.tenant}/"
        return f"appid={self.client_id};oid={self.object_id};iss={issuer}"


@dataclass
class AccessToken:
    """One that was issued; `resource` is its audience, `revoked` may be set."""

    value: str = field(repr=False)
    principal: Principal
    resource: str
    expires_at: float
    revoked: bool = False


class Issued:
    """Every access token that was issued, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tokens: list[AccessToken] = []

    def issue(self, principal: Principal, resource: str) -> AccessToken:
        """Return a new one; it looks like a JWT, and says nothing."""
        words = ("eyJ0eXAiOiJKV1QifQ", secrets.token_urlsafe(48), secrets.token_urlsafe(24))
        expires_at = self._clock.now() + LIFETIME
        self.tokens.append(AccessToken(".".join(words), principal, resource, expires_at))
        return self.tokens[-1]

    def find(self, value: str) -> AccessToken | None:
        """Return the one of this value, if it holds."""
        now = self._clock.now()
        found = (token for token in self.tokens if token.value == value)
        return next((t for t in found if not t.revoked and now < t.expires_at), None)
