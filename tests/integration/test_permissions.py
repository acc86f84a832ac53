"""The README's matrix of permissions: each row suffices for its agent, and less does not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.material import fields, make_root
from tests.support.process import certagent

README = (Path(__file__).parents[2] / "README.md").read_text()
CA = make_root().intermediate().raw()
REPLACING = "issuer/+/sign-intermediate"


def permissions(source: str) -> list[tuple[str, str]]:
    """What a row of the table says: paths, each with its capability."""
    (row,) = re.findall(rf"^\| {re.escape(source)} \| ([^|]*) \|", README, re.MULTILINE)
    found: list[tuple[str, str]] = []
    capability = ""
    for word in re.findall("`([^`]*)`", row):
        if word.startswith("<"):
            found.append((word, capability))
        else:
            capability = word
    return found


ROWS = {
    source: permissions(source)
    for source in ("KV v2", "KV v1", "Vault PKI, a CA", "Vault PKI, a leaf")
}


class World:
    """What each row's agent reads from, and the agent with a policy of these permissions alone."""

    def __init__(self, openbao, home):
        self.openbao, self.home = openbao, home
        self.bundle: dict[str, object] = {"name": "it", "output": {"directory": str(home / "it")}}

    def of(self, source):
        return self.kv(source[-1]) if source.startswith("KV") else self.pki("leaf" in source)

    def kv(self, version):
        self.mount = self.openbao.kv(int(version))
        put = self.openbao.put if version == "2" else self.openbao.put_v1
        put(self.mount, "mesh/ca", fields(CA))
        self.bundle["source"] = {"vaultKV": {"mount": self.mount, "path": "mesh/ca"}}
        return self

    def pki(self, is_leaf):
        self.mount = self.openbao.pki()
        old = make_root(subject="CN=A", not_before=datetime.now(UTC) - timedelta(days=30))
        self.openbao.import_issuer(self.mount, old.pem + old.key_pem)
        source = {"mount": self.mount, "ttl": "720h", "keyType": "ec-p256"}
        if is_leaf:
            self.openbao.pki_role(self.mount, "web", max_ttl="720h")
            names = {
                "role": "web",
                "commonName": "web.example.com",
                "dnsNames": ["web.example.com"],
            }
            self.bundle |= {"kind": "tls", "source": {"vaultPKI": source | names}}
        else:
            self.bundle["source"] = {"vaultPKI": source | {"commonName": "Mesh CA"}}
        return self

    def replace_issuer(self):
        """Let another root sign: until it is distributed, the one before does for a new pod."""
        self.openbao.make_default(self.mount, self.openbao.issuer(self.mount, "B"))

    def init(self, given):
        names = {"mount": self.mount, "path": "mesh/ca", "role": "web"}
        paths = {
            re.sub("<(.*?)>", lambda name: names[name[1]], path): capability
            for path, capability in given
        }
        token = self.openbao.create_token(self.openbao.policy_of(**paths), no_default_policy=True)
        file = self.home / "certagent.yaml"
        file.write_text(json.dumps({"bundles": [self.bundle]}))
        environ = {"VAULT_ADDR": self.openbao.address, "VAULT_TOKEN": token}
        return certagent("init", "--config", file, "--deadline", "300ms", **environ)


@pytest.mark.parametrize("source", ROWS)
def test_a_rows_permissions_suffice(openbao, tmp_path, source):
    done = World(openbao, tmp_path).of(source).init(ROWS[source])

    assert done.code == 0, done.stderr
    assert (tmp_path / "it").is_dir()


@pytest.mark.parametrize(
    ("source", "without"),
    [
        pytest.param(source, each, id=f"{source} without {each[0]}")
        for source, row in ROWS.items()
        for each in row
    ],
)
def test_none_of_them_can_be_left_out(openbao, tmp_path, source, without):
    world = World(openbao, tmp_path).of(source)
    if without[0].endswith(REPLACING):
        world.replace_issuer()
    rest = [each for each in ROWS[source] if each != without] or [("sys/mounts", "read")]

    done = world.init(rest)

    assert done.code == 77, done.stderr
    assert world.init(ROWS[source]).code == 0
