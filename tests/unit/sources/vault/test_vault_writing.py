"""What Vault's refusals to write mean to an operator."""

from __future__ import annotations

import pytest

from certagent.config.model import VaultKVSource
from certagent.errors import AccessDenied, OutputError, SourceUnavailable
from certagent.sources.vault.client import VaultRefused
from certagent.sources.vault.writing import VaultKVStore
from certagent.sources.writing import Stored

STALE = "check-and-set parameter did not match the current version"
NEWEST = {"data": {"data": None, "metadata": {"version": 6}}}


class Answers:
    """A connection that refuses, then answers."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def call(self, _operation: object, _asker: str = "") -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("refused", "error", "said"),
    [
        (VaultRefused(403, ""), AccessDenied, '"create" and "update" on "kv/data/certs"'),
        (VaultRefused(400, STALE), OutputError, "its newest version is 6 now"),
        (VaultRefused(400, "upgrading from non-versioned"), SourceUnavailable, "upgrading"),
    ],
)
def test_a_refused_write_is_explained(refused, error, said):
    config = VaultKVSource(mount="kv", path="certs", kv_version=2)
    store = VaultKVStore(Answers(refused, NEWEST), config)

    with pytest.raises(error) as told:
        store.write({"ca_key": "x"}, Stored("5", "6"))

    assert said in str(told.value)


def test_what_is_stored_is_not_shown():
    assert "secret" not in repr(Stored("1", "2", {"ca_key": "secret"}))
