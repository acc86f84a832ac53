"""The configuration: YAML that anybody wrote, variables that Helm rendered, SOURCE strings."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.config.decoding import decode, load
from certagent.config.model import Config
from certagent.config.settings import SETTINGS
from certagent.config.yamltext import parse_all
from certagent.errors import ConfigurationError
from tests.fuzz.judging import corpus, typed
from tests.fuzz.mutations import mangled, mangled_json
from tests.support.effort import effort

TOKEN = "hvs.canary-of-a-token-that-nobody-may-see"
ENVIRON = {"VAULT_TOKEN": TOKEN}

DOCUMENT = {
    "vault": {
        "address": "https://vault.example.com:8200",
        "namespace": "team",
        "auth": {"method": "kubernetes", "role": "istiod", "mount": "kubernetes-cluster1"},
        "requestTimeout": "10s",
    },
    "azure": {"vaultUrl": "https://mesh.vault.azure.net", "credential": "managedIdentity"},
    "bundles": [
        {
            "name": "istiod-ca",
            "source": {"vaultKV": {"mount": "kv", "path": "certs", "fields": {"chain": "chain"}}},
            "output": {"directory": "/etc/istio-ca", "keyMode": "0640"},
            "hooks": [{"kind": "exec", "name": "h", "command": ["true"], "on": "roots"}],
            "confirm": {"address": "127.0.0.1:15012", "within": "30s"},
        },
        {
            "name": "ingress",
            "kind": "tls",
            "source": {"azureKeyVault": {"certificate": "ingress"}},
            "output": {"directory": "/etc/certagent/ingress"},
        },
        {
            "name": "egress",
            "kind": "tls",
            "source": {
                "vaultPKI": {"mount": "pki", "role": "web", "ttl": "72h", "dnsNames": ["a"]}
            },
            "output": {"directory": "/etc/certagent/egress"},
        },
    ],
    "refresh": {"interval": "30s"},
    "rotation": {"distribute": "25h", "retire": "25h", "slack": "1h", "workloadTTL": "24h"},
    "trust": {"roots": ["sha256:" + "a" * 64]},
    "init": {"deadline": "5m"},
    "log": {"format": "json", "level": "info"},
}
SEEDS = [
    DOCUMENT,
    {"bundles": [{**DOCUMENT["bundles"][0], "source": {"files": {"directory": "/x"}}}]},
]

YAML_TOKENS = [
    *(
        b": ",
        b"- ",
        b"\n",
        b"\n  ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"? ",
        b"|\n",
        b">",
        b"#",
        b"'",
        b'"',
        b"---\n",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"<<: [*a, *a]\n",
        b"!!int ",
        b'!!int "" ',
        b"!!float ",
        b"!!bool x ",
        b"!!set ",
    ),
    *(
        b"!!timestamp x ",
        b"!!binary ",
        b"!!omap ",
        b"!!python/object:os.system ",
        b"!<%0A> ",
        b"%TAG ! a:\n",
    ),
    *(
        b"0x" + b"f" * 5000,
        b"1:" * 3000,
        b".inf",
        b"~",
        b'"\\UFFFFFFFF"',
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 2000, b"{a: " * 500, b"30s\n", b"\x00", b"\t", b"=", b"on"),
]


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [yaml.safe_dump(each).encode() for each in SEEDS]


def attempt(data: bytes) -> None:
    """Read the bytes as a configuration file would be, in an environment with a token."""
    with typed(secrets=[TOKEN]):
        documents = parse_all(data, "The configuration file x")
        document = documents[0] if len(documents) == 1 else None
        if isinstance(document, dict):
            decoded(document, ENVIRON)


def decoded(document, environ) -> Config:
    """Decode, and hold what is accepted to what it says of itself."""
    config = decode(document, dict(environ), here=False)
    text = msgspec.json.encode(config)
    assert msgspec.json.decode(text, type=Config) == config
    assert decode(json.loads(text), {"VAULT_TOKEN": TOKEN}, here=False) == config
    return config


@pytest.mark.parametrize("data", corpus("configuration"))
def test_whatever_has_been_found_is_refused_or_read(data, tmp_path):
    attempt(data)
    path = tmp_path / "configuration"
    path.write_bytes(data)
    with typed(secrets=[TOKEN]):
        load(str(path), ENVIRON, here=False)


@settings(max_examples=effort(50, 100_000))
@given(mangled_json(SEEDS))
def test_any_document_is_refused_with_all_its_faults_or_means_the_same_when_written(data):
    attempt(data)


@settings(max_examples=effort(50, 100_000))
@given(mangled([yaml.safe_dump(seed).encode() for seed in SEEDS], YAML_TOKENS))
def test_any_yaml_is_refused_with_its_place_or_read(data):
    attempt(data)


def test_a_variable_that_is_no_text_is_told_by_its_name():
    environ = {
        "CERTAGENT_SOURCE": "file:/in",
        "ROOT_CA_DIR": "/out",
        "CERTAGENT_LOG_FORMAT": "\udcff",
    }

    with pytest.raises(ConfigurationError, match="CERTAGENT_LOG_FORMAT: not UTF-8"):
        decode({}, environ)


VARIABLES = [setting.variable for setting in SETTINGS]
PIECES = st.sampled_from(
    [
        *(
            "vault:",
            "azure:",
            "file:",
            "vault-pki:",
            "https://",
            "http://",
            "://",
            "user:pass@",
            "@",
        ),
        *(
            "kv",
            "/",
            "//",
            "..",
            "mesh",
            "secret",
            "-",
            ":",
            ":9089",
            "[::1]",
            "[",
            "]",
            "127.0.0.1",
            "%",
        ),
        *(
            "30",
            "s",
            "ms",
            "h",
            "9" * 400,
            "0",
            ".",
            "-1",
            "1e9",
            "٣",
            "²",
            "true",
            "1",
            "json",
            "hot",
        ),
        *(
            "\n",
            " ",
            "\t",
            "\x00",
            "\x1b",
            "\udcff",
            "é",
            "x" * 3000,
            "managedIdentity",
            "approle",
            "token",
        ),
    ]
)


@settings(max_examples=effort(100, 100_000))
@given(
    st.dictionaries(
        st.sampled_from(VARIABLES), st.lists(PIECES, max_size=4).map("".join), max_size=4
    ),
    st.sampled_from([None, *SEEDS]),
)
def test_any_environment_is_refused_or_taken(environ, seed):
    given_ = {"CERTAGENT_SOURCE": "file:/in", "ROOT_CA_DIR": "/out"} if seed is None else {}
    with typed(secrets=[TOKEN]):
        decoded(json.loads(json.dumps(seed or {})), {**given_, **environ, **ENVIRON})


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
@pytest.mark.parametrize(
    "place",
    [
        *(
            ("refresh", "interval"),
            ("init", "deadline"),
            ("rotation", "slack"),
            ("trust", "roots", 0),
        ),
        *(
            ("bundles", 0, "name"),
            ("bundles", 0, "output", "keyMode"),
            ("bundles", 0, "confirm", "within"),
        ),
        ("bundles", 1, "source", "azureKeyVault", "certificate"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_a_newline_after_a_value_is_no_part_of_it(place, end):
    """A pattern's `$` stands before a last newline too, and files end in one."""
    document = json.loads(json.dumps(DOCUMENT))
    owner = document
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] += end

    with pytest.raises(ConfigurationError) as refused:
        decode(document, {}, here=False)

    assert len(refused.value.faults) == 1
