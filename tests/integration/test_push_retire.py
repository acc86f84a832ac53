"""`certagent retire`: superseded keys go once no plan needs them, and not before."""

from __future__ import annotations

import json

import pytest

from tests.support.material import fields, make_root
from tests.support.openbao import OpenBaoError
from tests.support.operators import PATH, Secret
from tests.support.process import certagent

pytestmark = pytest.mark.measured

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
OLD, NEW = A.intermediate("cluster1").raw(), B.intermediate("cluster1").raw()
SHORT = {"CERTAGENT_DISTRIBUTE": "200ms", "CERTAGENT_RETIRE": "200ms", "CERTAGENT_SLACK": "0s"}
WINDOW = 0.7


@pytest.fixture
def secret(openbao, tmp_path):
    return Secret(openbao, openbao.kv(2), tmp_path)


@pytest.fixture
def replaced(secret):
    """Root A replaced by root B, a moment ago."""
    secret.put(OLD)
    secret.put(NEW)
    return secret


def phases(secret, **environ) -> list[dict]:
    shown = json.loads(secret.plan("--format", "json", **environ).stdout)[0]["phases"]
    return [{key: each[key] for key in ("phase", "signer", "roots")} for each in shown]


def test_a_version_that_nothing_needs_is_destroyed_and_the_plan_stays_the_same(replaced):
    replaced.wait_past(seconds=WINDOW)
    before = phases(replaced, **SHORT)

    done = replaced.retire("--yes", **SHORT)

    assert done.code == 0, done.stderr
    assert "the material of version 1 is destroyed" in done.stdout
    assert replaced.destroyed() == ["1"]
    with pytest.raises(OpenBaoError) as answer:
        replaced.openbao.call("GET", f"{replaced.mount}/data/{PATH}?version=1")
    assert answer.value.status == 404
    assert replaced.read() == (2, fields(NEW))
    assert phases(replaced, **SHORT) == before


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_without_yes_it_is_shown_and_nothing_is_destroyed(replaced, flags):
    replaced.wait_past(seconds=WINDOW)

    done = replaced.retire(*flags, **SHORT)

    assert done.code == 0
    assert "version 1: superseded, and not needed since" in done.stdout
    assert "nothing was destroyed; with --yes" in done.stdout
    assert replaced.destroyed() == []


def test_while_a_change_of_roots_is_under_way_it_is_65_and_says_what_would_break(replaced):
    shown = replaced.retire()
    assert shown.code == 0
    assert "version 1: kept until 20" in shown.stdout
    assert f"the root {A.fingerprint[:8]} goes at once" in shown.stdout

    done = replaced.retire("--yes")

    assert done.code == 65
    assert "still needed, version 1 until 20" in done.stderr
    assert replaced.destroyed() == []


def test_the_newest_good_version_is_never_destroyed(secret):
    secret.put(OLD)
    secret.openbao.put(secret.mount, PATH, {"ca_key": "x"})
    secret.wait_past(seconds=WINDOW)

    done = secret.retire("--yes", **SHORT)

    assert done.code == 0
    assert "version 1: kept: without it nothing can be published" in done.stdout
    assert secret.destroyed() == []


def test_a_deleted_version_s_key_is_destroyed_too(replaced):
    """Deleted material can be undeleted: the key is still there."""
    replaced.openbao.delete(replaced.mount, PATH, 1)
    replaced.wait_past(seconds=WINDOW)

    assert replaced.retire("--yes", **SHORT).code == 0
    assert replaced.destroyed() == ["1"]


def test_what_is_destroyed_already_is_not_told_again(replaced):
    replaced.wait_past(seconds=WINDOW)
    replaced.retire("--yes", **SHORT)

    done = replaced.retire("--yes", "--format", "json", **SHORT)

    assert done.code == 0
    shown = json.loads(done.stdout)
    assert [each["version"] for each in shown["versions"]] == ["2"]
    assert shown["destroyed"] == []
    assert shown["outcome"] == "no version can be destroyed now"


def test_json_names_what_was_destroyed(replaced):
    replaced.wait_past(seconds=WINDOW)

    shown = json.loads(replaced.retire("--yes", "--format", "json", **SHORT).stdout)

    assert shown["destroyed"] == ["1"]
    assert [each["free"] for each in shown["versions"]] == [False, True]


def test_key_value_version_1_has_nothing_to_destroy(openbao, tmp_path):
    secret = Secret(openbao, openbao.kv(1), tmp_path)
    openbao.put_v1(secret.mount, PATH, fields(OLD))

    done = secret.retire("--yes")

    assert done.code == 0
    assert "KV v1 keeps no older versions" in done.stdout


def test_a_token_that_may_not_destroy_is_77_and_told_what_it_lacks(replaced):
    replaced.wait_past(seconds=WINDOW)

    done = replaced.retire("--yes", **SHORT, VAULT_TOKEN=replaced.token("read", "update"))

    assert done.code == 77
    assert f'"update" on "{replaced.mount}/destroy/{PATH}"' in done.stderr


def test_no_such_secret_is_66(secret):
    assert secret.retire().code == 66


def test_a_directory_is_64(tmp_path):
    assert certagent("retire", f"file:{tmp_path}").code == 64
