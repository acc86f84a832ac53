"""`certagent push` against a real store: what it stores, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.material import fields, files, make_root, new_key, private_key_pem
from tests.support.openbao import OpenBaoError
from tests.support.process import Finished, certagent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.openbao import OpenBao

PATH = "istiod/certs"
A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
OLD = A.intermediate("cluster1").raw()
NEXT = A.intermediate("cluster1").raw()
OTHER_ROOT = B.intermediate("cluster1").raw()


@dataclass(frozen=True)
class Store:
    """One secret of a real OpenBao, and the operator's environment."""

    openbao: OpenBao
    mount: str
    tmp_path: Path

    @property
    def source(self) -> str:
        return f"vault:{self.mount}/{PATH}"

    @property
    def environ(self) -> dict[str, str]:
        return {"VAULT_ADDR": self.openbao.address, "VAULT_TOKEN": self.openbao.token}

    def directory(self, raw) -> Path:
        made = self.tmp_path / f"set-{len(list(self.tmp_path.iterdir()))}"
        made.mkdir()
        for name, data in files(raw).items():
            (made / name).write_bytes(data)
        return made

    def push(self, raw, *flags: str, **environ: object) -> Finished:
        words = ("push", self.source, "--from", self.directory(raw), *flags)
        return certagent(*words, **{**self.environ, **environ})

    def pipe(self, text: str, *flags: str) -> Finished:
        return certagent("push", self.source, "--from", "-", *flags, stdin=text, **self.environ)

    def read(self) -> tuple[int, dict[str, str]]:
        """The newest version's number and fields."""
        data = self.openbao.call("GET", f"{self.mount}/data/{PATH}")["data"]
        return data["metadata"]["version"], data["data"]


@pytest.fixture
def store(openbao, tmp_path):
    return Store(openbao, openbao.kv(2), tmp_path)


@pytest.fixture
def store_v1(openbao, tmp_path):
    return Store(openbao, openbao.kv(1), tmp_path)


class TestStoring:
    def test_the_first_set_becomes_version_1(self, store):
        done = store.push(OLD)

        assert done.code == 0, done.stderr
        assert "version 1 is stored, and was read back" in done.stdout
        assert store.read() == (1, fields(OLD))

    def test_a_change_of_roots_is_shown_with_its_phases_and_dates(self, store):
        store.push(OLD)

        done = store.push(
            OTHER_ROOT, "--dry-run", CERTAGENT_DISTRIBUTE="24h", CERTAGENT_RETIRE="48h"
        )

        assert done.code == 0, done.stderr
        phases = [
            line.split()[1] for line in done.stdout.splitlines() if "  signer version" in line
        ]
        assert phases == ["distribute", "switch", "settled"]
        assert f"+ root  CN=Root B  sha256 {B.fingerprint}" in done.stdout
        assert f"- root  CN=Root A  sha256 {A.fingerprint}  is published until 20" in done.stdout
