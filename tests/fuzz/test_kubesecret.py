"""A Kubernetes Secret on standard input, in JSON and YAML."""

from __future__ import annotations

import base64
import io
import json
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.cli.kubesecret import read_secret
from certagent.material.kinds import CA
from certagent.material.serving import tls
from tests.fuzz.judging import corpus, typed
from tests.fuzz.mutations import mangled, mangled_json
from tests.fuzz.test_configuration import YAML_TOKENS
from tests.support.effort import effort
from tests.support.material import files, make_leaf, make_root, tls_files


@cache
def seeds():
    """The Secrets that can be piped in."""
    root = make_root()
    named = {
        "cacerts": files(root.intermediate().raw()),
        "istio-ca-secret": {**files(root.raw()), "cert-chain.pem": b"", "root-cert.pem": b""},
        "tls": tls_files(make_leaf(roots=(root,)).raw()),
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "istio-system"},
            "type": "Opaque",
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
            "stringData": {"note": "x"},
        }
        for name, data in named.items()
    ]


@cache
def secrets():
    keys = ("ca-key.pem", "tls.key")
    return [seed["data"][key] for seed in seeds() for key in keys if key in seed["data"]]


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [json.dumps(each).encode() for each in seeds()]


def attempt(data: bytes) -> None:
    """Pipe the bytes in, for either kind."""
    for kind in (CA, tls()):
        with typed(secrets=secrets()):
            kind.decode(read_secret(io.BytesIO(data), kind))


@pytest.mark.parametrize("data", corpus("kubesecret"))
def test_whatever_has_been_found_is_refused_or_read(data):
    attempt(data)


@settings(max_examples=effort(50, 50_000))
@given(st.data())
def test_any_json_is_refused_or_read(data):
    attempt(data.draw(mangled_json(seeds())))


@settings(max_examples=effort(30, 50_000))
@given(st.data())
def test_any_yaml_is_refused_or_read(data):
    attempt(data.draw(mangled([yaml.safe_dump(seed).encode() for seed in seeds()], YAML_TOKENS)))


@settings(max_examples=effort(5, 1000))
@given(st.data())
def test_json_and_yaml_of_one_secret_are_the_same_set(data):
    seed = data.draw(st.sampled_from(seeds()))
    texts = (json.dumps(seed).encode(), yaml.safe_dump(seed).encode())
    kind = tls() if seed["metadata"]["name"] == "tls" else CA

    one, other = (read_secret(io.BytesIO(text), kind) for text in texts)

    assert one == other
