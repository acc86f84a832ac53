"""The part of a Kubernetes API server that Vault asks: TokenReview, over HTTPS, on loopback.

It checks what the real one checks of a service-account token: the signature, the issuer, the times,
the audience, that the account still exists, and that the reviewer may review. It also tells its
issuer's keys, as `/openid/v1/jwks` and by OIDC discovery.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from tests.support.tls import TLSAuthority

ISSUER = "https://kubernetes.default.svc.cluster.local"
REVIEWER = ("vault", "reviewer")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign_jwt(key: rsa.RSAPrivateKey, claims: dict[str, object]) -> str:
    """Return the claims as a JWT, signed with RS256 (RFC 7515)."""
    header = {"alg": "RS256", "typ": "JWT", "kid": "test"}
    signed = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{_encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class Cluster:
    """A cluster's token issuer and, inside `with`, its TokenReview API."""

    def __init__(self, authority: TLSAuthority) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.ca_pem = authority.ca_pem
        self.deleted: set[tuple[str, str]] = set()
        self.reviewers = {REVIEWER}
        """The accounts that are bound to `system:auth-delegator`."""
        self.issuer = ISSUER
        self.broken = False
        """Whether it answers 500, as an API server does that has lost its etcd."""
        self.reviews = 0
        handler = type("_Handler", (_TokenReview,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        context = authority.server_context("tokenreview")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"https://localhost:{self._server.server_port}"

    @property
    def public_key_pem(self) -> str:
        """The key that a `jwt` auth mount checks tokens with."""
        public = self.key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def jwks(self) -> dict[str, object]:
        """What `kubectl get --raw /openid/v1/jwks` prints."""
        numbers = self.key.public_key().public_numbers()
        n, e = (
            _encode(each.to_bytes((each.bit_length() + 7) // 8)) for each in (numbers.n, numbers.e)
        )
        key = {"use": "sig", "kty": "RSA", "kid": "test", "alg": "RS256", "n": n, "e": e}
        return {"keys": [key]}

    @property
    def reviewer_jwt(self) -> str:
        """The token of the account that may create TokenReviews."""
        return self.mint(*REVIEWER, audience=self.issuer)

    def mint(
        self,
        namespace: str = "istio-system",
        service_account: str = "istiod",
        *,
        audience: str = "vault",
        expires_in: float = 3600,
        key: rsa.RSAPrivateKey | None = None,
    ) -> str:
        """Return a projected service-account token; `expires_in` (seconds) may be negative."""
        now = int(time.time())
        issued = now - 7200 if expires_in < 0 else now
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "aud": [audience],
            "iat": issued,
            "nbf": issued,
            "exp": int(now + expires_in),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": service_account, "uid": f"uid-{service_account}"},
                "pod": {"name": f"{service_account}-0", "uid": f"uid-{service_account}-0"},
            },
        }
        return sign_jwt(key or self.key, claims)

    def review(self, token: str, audiences: list[str]) -> dict[str, object]:
        """Return the status of a TokenReview."""
        try:
            claims, granted = self._verified(token, audiences or [self.issuer])
        except (ValueError, KeyError, InvalidSignature) as error:
            return {"authenticated": False, "error": f"invalid bearer token: {error}"}
        account = claims["kubernetes.io"]["serviceaccount"]
        namespace = claims["kubernetes.io"]["namespace"]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        user = {"username": claims["sub"], "uid": account["uid"], "groups": groups}
        return {"authenticated": True, "user": user, "audiences": granted}

    def _verified(self, token: str, audiences: list[str]) -> tuple[dict, list[str]]:
        signed, _, signature = token.rpartition(".")
        self.key.public_key().verify(
            _decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims = json.loads(_decode(signed.partition(".")[2]))
        if claims["iss"] != self.issuer or not claims["nbf"] <= time.time() < claims["exp"]:
            raise ValueError("expired, or of another issuer")
        namespace, account = claims["sub"].split(":")[2:]
        if (namespace, account) in self.deleted:
            raise ValueError("service account not found")
        granted = [audience for audience in audiences if audience in claims["aud"]]
        if not granted:
            raise ValueError("none of the audiences is the token's")
        return claims, granted

    def __enter__(self) -> Self:
        poll = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=poll, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _TokenReview(BaseHTTPRequestHandler):
    cluster: Cluster
    timeout = 10

    def do_GET(self) -> None:
        discovery = {
            "issuer": self.cluster.issuer,
            "jwks_uri": f"{self.cluster.address}/openid/v1/jwks",
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        told = {
            "/.well-known/openid-configuration": discovery,
            "/openid/v1/jwks": self.cluster.jwks,
        }
        self._answer(200 if self.path in told else 404, told.get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.cluster.reviews += 1
        reviewer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        names = ["system:serviceaccount:" + ":".join(each) for each in self.cluster.reviewers]
        user = self.cluster.review(reviewer, []).get("user", {})
        if self.cluster.broken:
            self._answer(500, {"kind": "Status", "code": 500, "message": "etcd is away"})
        elif not isinstance(user, dict) or user.get("username") not in names:
            self._answer(403, {"kind": "Status", "code": 403, "message": "forbidden"})
        else:
            spec = body["spec"]
            status = self.cluster.review(spec["token"], spec.get("audiences", []))
            kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
            self._answer(201, {**kind, "spec": spec, "status": status})

    def _answer(self, code: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
