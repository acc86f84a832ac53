"""Today's CA, piped from kubectl into the store: the first day of every user."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest
import yaml

from tests.support.material import files, make_root, pem, private_key_pem
from tests.support.operators import Secret
from tests.support.process import COMMAND, environment

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
CA = A.intermediate("cluster1")
SELF_SIGNED = make_root(subject="O=cluster.local")


@pytest.fixture
def secret(openbao, tmp_path):
    return Secret(openbao, openbao.kv(2), tmp_path)


def kubernetes(values: dict[str, bytes], name: str = "cacerts", type_: str = "Opaque") -> dict:
    """As `kubectl get secret NAME -o json` prints it."""
    return {
        "apiVersion": "v1",
        "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "istio-system", "resourceVersion": "813"},
        "type": type_,
    }


def self_signed() -> dict:
    """As istiod stores the CA that it made: neither chain nor root (ca.go, BuildSecret)."""
    key = private_key_pem(SELF_SIGNED.key)
    values = {"ca-cert.pem": SELF_SIGNED.pem, "ca-key.pem": key, "cert-chain.pem": b""}
    rest = {"key.pem": b"", "root-cert.pem": b""}
    return kubernetes({**values, **rest}, "istio-ca-secret", "istio.io/ca-root")


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_cacerts_becomes_version_1(secret, dump):
    done = secret.pipe(dump(kubernetes(files(CA.raw()))))

    assert done.code == 0, done.stdout + done.stderr
    version, found = secret.read()
    assert version == 1
    assert found["ca_cert"] == CA.pem.decode()


def test_what_kubectl_create_prints_is_taken(secret):
    """`kubectl create secret generic cacerts … --dry-run=client -o json`: no type, no status."""
    made = kubernetes(files(CA.raw()))
    del made["type"]
    made["metadata"] = {"creationTimestamp": None, "name": "cacerts"}

    assert secret.pipe(json.dumps(made, indent=4)).code == 0


def test_string_data_wins_over_data(secret):
    made = kubernetes(files(CA.raw())) | {"stringData": {"root-cert.pem": pem(A, B).decode()}}

    assert secret.pipe(yaml.safe_dump(made)).code == 0
    assert secret.read()[1]["root_cert"].count("BEGIN") == 2


def test_istiod_s_own_ca_becomes_a_set_whose_root_it_is_and_the_next_push_stages_itself(secret):
    assert secret.pipe(json.dumps(self_signed())).code == 0
    _, found = secret.read()
    assert found["ca_cert"] == found["cert_chain"] == found["root_cert"] == SELF_SIGNED.pem.decode()

    done = secret.push(CA.raw())

    assert done.code == 0, done.stdout
    assert "distribute  signer version 1" in done.stdout


def test_a_tls_secret_is_taken_as_istiod_reads_it(secret):
    values = {"tls.crt": CA.pem, "tls.key": private_key_pem(CA.key), "ca.crt": A.pem}

    done = secret.pipe(json.dumps(kubernetes(values, "my-ca", "kubernetes.io/tls")))

    assert done.code == 0, done.stdout
    assert secret.read()[1]["cert_chain"] == pem(CA, A).decode()


def test_an_empty_list_of_revocations_is_none(secret):
    assert secret.pipe(json.dumps(kubernetes({**files(CA.raw()), "ca-crl.pem": b""}))).code == 0
    assert "ca_crl" not in secret.read()[1]


GOOD = kubernetes(files(CA.raw()))
BAD = {
    "nothing": ("", "empty"),
    "too much": ("x" * (5 << 20), "more than"),
    "neither JSON nor YAML": ("{a: [", "neither JSON nor YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "of one document"),
    "a list": (json.dumps({"kind": "List", "items": [GOOD]}), "'List'"),
    "a ConfigMap": (json.dumps({**GOOD, "kind": "ConfigMap"}), "'ConfigMap'"),
    "a text": ("hello", "'str'"),
    "nested without end": ("[" * 100_000, "neither JSON nor YAML"),
    "data that is no mapping": (json.dumps({**GOOD, "data": [1]}), "data is no mapping"),
    "a value that is no text": (json.dumps({**GOOD, "data": {"ca-key.pem": 1}}), "ca-key.pem"),
    "not base64": (json.dumps({**GOOD, "data": {"ca-key.pem": "%%"}}), "not base64"),
    "a Secret without a CA": (json.dumps(kubernetes({"password": b"x"})), "it has: password"),
    "an empty Secret": (json.dumps(kubernetes({})), "it has: nothing"),
    "cacerts without its root": (
        json.dumps(kubernetes({k: v for k, v in files(CA.raw()).items() if k != "root-cert.pem"})),
        "'root-cert.pem'",
    ),
    "tls without its CA": (
        json.dumps(kubernetes({"tls.crt": CA.pem, "tls.key": CA.key_pem})),
        "'ca.crt'",
    ),
    "surrogates": (json.dumps({**GOOD, "stringData": {"ca-cert.pem": "\udcff"}}), "certificate"),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_65_with_a_clear_message(secret, case):
    text, said = BAD[case]

    done = secret.pipe(text)

    assert done.code == 65
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not secret.exists()


def test_a_closed_standard_input_is_64(secret):
    shell = ["sh", "-c", 'exec "$@" <&-', "sh"]
    done = subprocess.run(
        [*shell, *COMMAND, "push", secret.source, "--from", "-"],
        env=environment(secret.environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 64
    assert "Standard input is closed" in done.stderr


def test_a_damaged_secret_is_never_quoted(secret):
    """A YAML parser's message quotes the line that it fails at."""
    text = yaml.safe_dump(GOOD).replace("\n", "\n\t ")

    done = secret.pipe(text)

    assert done.code == 65
    assert GOOD["data"]["ca-key.pem"][:20] not in done.stdout + done.stderr
