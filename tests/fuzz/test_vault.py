"""What a Vault, or something in its place, may answer: logins, mounts, secrets, PKI, refusals.

Asked over HTTP, so that whatever transport the agent has is judged with what it makes of it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.config.model import KubernetesAuth, VaultConfig
from certagent.config.model import VaultKVSource as KVConfig
from certagent.config.model import VaultPKISource as PKIConfig
from certagent.material.kinds import CA
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.kv import VaultKVSource
from certagent.sources.vault.pki import Destination, VaultPKISource
from tests.fuzz.judging import corpus, typed
from tests.fuzz.mutations import mangled, mangled_json
from tests.support.effort import effort
from tests.support.material import fields, make_root
from tests.support.scripted import ScriptedServer, answer

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnktb2YtYS1wb2QifQ.c2lnbmF0dXJlLWNhbmFyeQ"
TOKEN = "hvs.canary-of-a-token-that-was-given"
CAN = make_root().intermediate()
SECRETS = [JWT, TOKEN, *CAN.key_pem.decode().split("\n")[1:-2]]

LOGIN = {"auth": {"client_token": TOKEN, "lease_duration": 3600, "token_type": "service"}}
MOUNT = {"data": {"type": "kv", "path": "kv/", "options": {"version": "2"}}}
METADATA = {
    "version": 2,
    "created_time": "2026-01-01T00:00:00.123456789Z",
    "deletion_time": "",
    "destroyed": False,
}
SECOND = {"data": {"data": fields(CAN.raw()), "metadata": METADATA}}
DELETED = {
    "data": {"data": None, "metadata": {**METADATA, "deletion_time": "2026-01-02T00:00:00.1Z"}}
}
FIRST = {"data": fields(CAN.raw())}
ISSUERS = {"data": {"key_info": {"a": {"issuer_name": "root", "key_id": "k", "is_default": True}}}}
ISSUER = {"data": {"certificate": CAN.pem.decode(), "ca_chain": [CAN.root.pem.decode()]}}
SIGNED = {"data": {"certificate": CAN.workload_leaf().pem.decode(), "serial_number": "1"}}
ERRORS = {"errors": [f"permission denied for {TOKEN} by {JWT}"], "warnings": ["none"]}

GOOD = {
    "login": LOGIN,
    "mounts": MOUNT,
    "data": SECOND,
    "secret": FIRST,
    "issuers": ISSUERS,
    "issuer": ISSUER,
    "sign": SIGNED,
}
"""By what is asked: the answer that a Vault gives."""

STATUSES = [200] * 6 + [204, 301, 307, 400, 403, 404, 405, 412, 429, 472, 473, 500, 503]


def asked_for(path: str) -> str:
    """What a request is for, by its path."""
    if path.endswith("/login"):
        return "login"
    for part in ("mounts", "issuers", "issuer", "sign", "data"):
        if f"/{part}" in path:
            return part
    return "secret"


@contextmanager
def vault(folder):
    """A server whose answers are put into the mapping, as bytes, and sources that ask it."""
    token = folder / "token"
    token.write_text(JWT)
    answers: dict[str, bytes] = {}

    def script(asked, _):
        kind = asked_for(asked.path)
        return answers.get(kind) or answer(200, GOOD[kind])

    with ScriptedServer(script) as server:

        def tried(**given: bytes) -> int:
            answers.clear()
            answers.update(given)
            server.asked.clear()
            return judged(server, str(token))

        yield tried


def judged(server: ScriptedServer, token_file: str) -> int:
    """Read every kind of source; return how often one had a whole set."""
    sets = 0
    auth = KubernetesAuth(role="istiod", token_file=token_file)
    config = VaultConfig(address=server.address, auth=auth, request_timeout="2s")
    for version in (msgspec.UNSET, 1):
        kv = KVConfig(mount="kv", path="certs", kv_version=version)
        with asking(config) as connection:
            sets += read(VaultKVSource(connection, kv))
    pki = PKIConfig(mount="pki", ttl="72h", common_name="CA", key_type="ec-p256")
    with asking(config) as connection:
        read(VaultPKISource(connection, pki, Destination(CA), clock=lambda: datetime.now(UTC)))
    assert len(server.asked) < 100
    return sets


@contextmanager
def asking(config):
    connection = VaultConnection(config)
    try:
        yield connection
        assert connection.logins["ok"] <= 3, "a login at every request"
    finally:
        connection.close()


def read(source) -> int:
    """Take up to three revisions, load what they hold, and poll once more; return how many held."""
    sets = 0
    for _ in range(2):
        with typed(secrets=SECRETS):
            for revision in islice(source.revisions(), 3):
                assert revision.created_at is None or revision.created_at.tzinfo
                assert revision.version.isprintable()
                with typed(secrets=SECRETS):
                    CA.decode(revision.load())
                    sets += 1
    return sets


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [json.dumps(each).encode() for each in (*GOOD.values(), ERRORS, DELETED)]


def attempt(data: bytes, tried) -> None:
    """Send the bytes as the body of each answer, with success and with a refusal."""
    for kind in GOOD:
        for status in (200, 403):
            tried(**{kind: answer(status, data)})


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    with vault(tmp_path_factory.mktemp("vault")) as opened:
        yield opened


def test_what_is_not_damaged_is_read(tried):
    assert tried() == 4


@pytest.mark.parametrize("data", corpus("vault"))
def test_whatever_has_been_found_is_a_typed_error_or_a_revision(data, tried):
    attempt(data, tried)


@settings(max_examples=effort(30, 30_000))
@given(st.data())
def test_any_answer_is_a_typed_error_or_a_revision(tried, data):
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    body = data.draw(mangled_json([GOOD[kind], ERRORS, *([DELETED] if kind == "data" else ())]))
    tried(**{kind: answer(data.draw(st.sampled_from(STATUSES)), body)})


HEADERS = [
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: x\r\n", b"\r\n"),
    *(b"Content-Length: " + b"9" * 30 + b"\r\n", b"Transfer-Encoding: chunked\r\n", b"\r", b":"),
    *(b"Content-Encoding: gzip\r\n", b"Location: //[\r\n", b"Location: ftp://x/\r\n", b"\x00"),
    *(b" folded\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/9.9 999 \xff\r\n", b"\n", b"\xff"),
    *(b"X: " + b"a" * 70_000 + b"\r\n", b"X: y\r\n" * 200, b"Set-Cookie: \xff=\xff\r\n"),
]


def test_an_answer_without_a_head_is_not_quoted(tried):
    """So a client reads on a kept connection that still has the end of another answer."""
    tried(data=answer(200, SECOND).partition(b"\r\n\r\n")[2])


@settings(max_examples=effort(20, 20_000))
@given(st.data())
def test_any_bytes_instead_of_http_are_a_typed_error_or_a_revision(tried, data):
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    whole = answer(data.draw(st.sampled_from(STATUSES)), GOOD[kind], Retry_After="1")
    tried(**{kind: data.draw(mangled([whole, whole[:200]], HEADERS)) or b"\n"})
