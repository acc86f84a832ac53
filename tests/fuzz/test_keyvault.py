"""What a Key Vault, its login, or something in their place may answer: lists, secrets, refusals.

The unmodified SDK asks; its answers come out of `requests`, in place of the network.
"""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from itertools import islice
from unittest import mock
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from certagent.config.model import AzureConfig, AzureKeyVaultSource, ManagedIdentity
from certagent.material.kinds import CA
from certagent.sources.azure import AzureConnection, KeyVaultSource
from tests.fuzz.judging import corpus, typed
from tests.fuzz.mutations import mangled, mangled_json
from tests.support.azure.challenges import forget_challenges
from tests.support.effort import effort
from tests.support.material import fields, make_root

VAULT = "https://mesh.vault.azure.net"
TOKEN = "eyJhbGciOiJub25lIn0.eyJjYW5hcnkiOiJvZi1hLXRva2VuIn0.canary"
CAN = make_root().intermediate()
SECRETS = [TOKEN, *CAN.key_pem.decode().split("\n")[1:-2]]

ID = f"{VAULT}/secrets/all/0123456789abcdef0123456789abcdef"
ATTRIBUTES = {"enabled": True, "created": 1767225600, "updated": 1767225600, "exp": 1900000000}
LIST = {"value": [{"id": ID, "attributes": ATTRIBUTES, "tags": {"a": "b"}}], "nextLink": None}
SECRET = {
    "value": json.dumps(fields(CAN.raw())),
    "id": ID,
    "contentType": "application/json",
    "attributes": ATTRIBUTES,
    "tags": {"certagent-revision": "x"},
}
LOGIN = {"access_token": TOKEN, "expires_in": "3600", "expires_on": "4102444800", "resource": "x"}
ERROR = {
    "error": {
        "code": "Forbidden",
        "message": "Caller is not authorized.\r\nCaller: appid=1\r\nAction: 'x'",
        "innererror": {"code": "ForbiddenByRbac"},
    }
}
REFUSED = {"error": "invalid_request", "error_description": "Identity not found Trace ID: 1"}
CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/tenant",'
    ' resource="https://vault.azure.net"'
)
GOOD = {"list": LIST, "secret": SECRET, "login": LOGIN}
STATUSES = [200] * 6 + [204, 301, 400, 401, 403, 404, 408, 429, 500, 503]


def asked_for(request: requests.PreparedRequest) -> str:
    """What a request is for."""
    url = urlsplit(request.url)
    if url.hostname != "mesh.vault.azure.net":
        return "login"
    if "Authorization" not in request.headers:
        return "challenge"
    return "list" if url.path.endswith("/versions") else "secret"


@contextmanager
def azure(answers):
    """Answer by what is asked for: (status, body, headers); `challenge` has no body."""

    def send(_, request, **__):
        status, body, headers = answers.get(asked_for(request)) or usual(asked_for(request))
        response = requests.Response()
        response.status_code, response.url, response.request = status, request.url, request
        response.headers.update(headers)
        response.raw = HTTPResponse(io.BytesIO(body), status=status, preload_content=False)
        return response

    with mock.patch.object(HTTPAdapter, "send", send):
        yield
    forget_challenges()


def usual(kind: str) -> tuple[int, bytes, dict[str, str]]:
    if kind == "challenge":
        return 401, b"", {"WWW-Authenticate": CHALLENGE}
    return 200, json.dumps(GOOD[kind]).encode(), {"Content-Type": "application/json"}


def tried(**answers) -> int:
    """Read the source twice, as an agent polls; return how often there was a whole set."""
    config = AzureConfig(vault_url=VAULT, credential=ManagedIdentity())
    with azure(answers):
        connection = AzureConnection(config)
        try:
            source = KeyVaultSource(connection, AzureKeyVaultSource(secret="all"))
            return sum(read(source) for _ in range(2))
        finally:
            connection.close()


def read(source) -> int:
    sets = 0
    with typed(secrets=SECRETS):
        for revision in islice(source.revisions(), 3):
            assert revision.created_at.tzinfo
            with typed(secrets=SECRETS):
                CA.decode(revision.load())
                sets += 1
    return sets


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [json.dumps(each).encode() for each in (*GOOD.values(), ERROR, REFUSED)]


def attempt(data: bytes) -> None:
    """Take the bytes for each answer, with success and refusals."""
    for kind in GOOD:
        for status in (200, 401, 403, 404, 429):
            tried(**{kind: (status, data, {"Content-Type": "application/json"})})
    forbidden = (403, json.dumps(ERROR).encode(), {"Content-Type": "application/json"})
    tried(list=forbidden, secret=(200, data, {"Content-Type": "application/json"}))
    tried(challenge=(401, b"", {"WWW-Authenticate": data.decode("latin-1")[:5000]}))


def test_what_is_not_damaged_is_read():
    assert tried() == 2


@pytest.mark.parametrize("data", corpus("keyvault"))
def test_whatever_has_been_found_is_a_typed_error_or_a_revision(data):
    attempt(data)


def test_an_answer_that_breaks_off_within_a_key_is_not_quoted():
    """The SDK's own error has the whole text of what is no JSON."""
    whole = json.dumps(SECRET).encode()
    assert whole.index(b"PRIVATE KEY") < 100

    tried(secret=(200, whole[:250], {"Content-Type": "application/json"}))


@settings(max_examples=effort(40, 30_000))
@given(st.data())
def test_any_answer_is_a_typed_error_or_a_revision(data):
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    status = data.draw(st.sampled_from(STATUSES))
    body = data.draw(mangled_json([GOOD[kind], ERROR, REFUSED]))
    headers = {"Content-Type": data.draw(st.sampled_from(("application/json", "text/html", "")))}
    headers["Retry-After"] = data.draw(st.sampled_from(("1", "x", "9" * 400)))
    denied = (403, json.dumps(ERROR).encode(), {"Content-Type": "application/json"})
    others = data.draw(st.sampled_from(({}, {"list": denied}))) if kind == "secret" else {}
    tried(**{kind: (status, body, headers)}, **others)


@settings(max_examples=effort(20, 20_000))
@given(
    mangled([CHALLENGE.encode()], (b'"', b",", b"=", b" ", b"Bearer ", b"https://", b"[", b"\xff"))
)
def test_any_challenge_is_a_typed_error_or_taken(header):
    tried(challenge=(401, b"", {"WWW-Authenticate": header.decode("latin-1")}))
