"""`certagent plan`: what the present history leads to, and when."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.support.material import files, make_root
from tests.support.openbao import OpenBaoError
from tests.support.operators import PATH, Secret
from tests.support.process import certagent

pytestmark = pytest.mark.measured

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
OLD, NEW = A.intermediate("cluster1").raw(), B.intermediate("cluster1").raw()


@pytest.fixture
def secret(openbao, tmp_path):
    return Secret(openbao, openbao.kv(2), tmp_path)


@pytest.fixture
def replaced(secret):
    """Root A replaced by root B, a moment ago."""
    secret.put(OLD)
    secret.put(NEW)
    return secret


def test_history_and_phases_are_lines(replaced):
    done = replaced.plan(CERTAGENT_DISTRIBUTE="24h", CERTAGENT_RETIRE="90m")

    assert done.code == 0, done.stderr
    source, first, second, heading, *phases = [line.strip() for line in done.stdout.splitlines()]
    a, b = A.fingerprint[:8], B.fingerprint[:8]
    assert source.endswith(replaced.source)
    assert first.startswith("version 1  20")
    assert first.endswith(f"roots {a}")
    assert second.endswith(f"roots {b}")
    assert heading == "phases, if nobody pushes (distribute 24h, retire 90m, slack 1h):"
    assert [line.split()[1:5] for line in phases[:3]] == [
        ["distribute", "signer", "version", "1"],
        ["switch", "signer", "version", "2"],
        ["settled", "signer", "version", "2"],
    ]


@pytest.mark.parametrize(
    ("hours", "phase", "signer"),
    [(0, "distribute", "1"), (26, "switch", "2"), (51, "settled", "2")],
)
def test_at_a_later_time_the_plan_is_that_of_then(replaced, hours, phase, signer):
    at = replaced.stored_at() + timedelta(hours=hours, seconds=1)

    done = replaced.plan("--at", f"{at:%FT%TZ}", "--format", "json")

    (shown,) = json.loads(done.stdout)
    first = shown["phases"][0]
    assert (first["phase"], first["signer"]) == (phase, signer)
    assert first["at"] == f"{at:%FT%TZ}"


def test_at_an_earlier_time_later_versions_are_left_out(replaced):
    done = replaced.plan("--at", "2026-01-01T00:00:00Z", "--format", "json")

    (shown,) = json.loads(done.stdout)
    assert shown["history"] == []
    assert [each["phase"] for each in shown["phases"]] == ["hold"]


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00"])
def test_a_time_that_is_none_or_has_no_zone_is_64(secret, time):
    assert secret.plan("--at", time).code == 64


def test_json_is_for_programs(replaced):
    (shown,) = json.loads(replaced.plan("--format", "json").stdout)

    assert shown["source"] == replaced.source
    assert [each["version"] for each in shown["history"]] == ["1", "2"]
    assert [each["roots"] for each in shown["history"]] == [[A.fingerprint], [B.fingerprint]]
    assert set(shown["phases"][0]["roots"]) == {A.fingerprint, B.fingerprint}


def test_a_refused_and_a_withdrawn_version_are_told_with_their_reason(replaced):
    replaced.openbao.put(replaced.mount, PATH, {"ca_key": "x"})
    replaced.put(NEW)
    replaced.openbao.destroy(replaced.mount, PATH, 4)

    done = replaced.plan()

    assert "version 3  20" in done.stdout
    assert "REFUSED part-missing" in done.stdout
    assert "destroyed" in done.stdout


def test_a_cut_history_is_told(replaced):
    replaced.metadata(max_versions=1)
    replaced.put(NEW)

    assert "older versions are missing" in replaced.plan().stdout


def test_every_bundle_of_a_configuration_is_shown(replaced, tmp_path):
    directory = tmp_path / "mounted"
    directory.mkdir()
    for name, data in files(OLD).items():
        (directory / name).write_bytes(data)
    config = tmp_path / "certagent.yaml"
    config.write_text(
        f"vault: {{address: '{replaced.openbao.address}', auth: {{method: token}}}}\n"
        "rotation: {strategy: immediate}\n"
        "bundles:\n"
        f"- {{name: one, source: {{vaultKV: {{mount: {replaced.mount}, path: {PATH}}}}},"
        " output: {directory: /a}}\n"
        f"- {{name: two, source: {{files: {{directory: '{directory}'}}}},"
        " output: {directory: /b}}\n"
    )

    done = certagent("plan", "--config", config, **replaced.environ)

    assert done.code == 0, done.stderr
    assert f"one: {replaced.source}" in done.stdout
    assert f"two: file:{directory}" in done.stdout
    assert "strategy immediate" in done.stdout
    assert "settled     signer version 2" in done.stdout


def test_a_directory_needs_no_vault(tmp_path):
    for name, data in files(OLD).items():
        (tmp_path / name).write_bytes(data)

    done = certagent("plan", f"file:{tmp_path}")

    assert done.code == 0, done.stderr
    assert "at an unknown time" in done.stdout
    assert "settled" in done.stdout


def test_a_source_that_is_none_is_64(secret):
    assert certagent("plan", "nowhere:else", **secret.environ).code == 64


def test_without_any_source_is_78(secret):
    done = certagent("plan", **secret.environ)

    assert done.code == 78
    assert "CERTAGENT_SOURCE" in done.stderr


def test_vault_in_a_configuration_that_names_none_is_78(secret, tmp_path):
    config = tmp_path / "certagent.yaml"
    config.write_text(
        "bundles: [{name: one, source: {files: {directory: /x}}, output: {directory: /y}}]\n"
    )

    assert secret.plan("--config", config).code == 78


def test_plan_writes_nothing_and_a_read_only_token_suffices(replaced):
    done = replaced.plan(VAULT_TOKEN=replaced.token("read"))

    assert done.code == 0
    assert replaced.read()[0] == 2


def test_no_such_secret_is_66(secret):
    assert secret.plan().code == 66


def test_the_store_keeps_the_larger_number_of_versions_of_mount_and_secret(secret):
    """What `push` reckons with: KV v2's own rule."""
    secret.openbao.call("POST", f"{secret.mount}/config", {"max_versions": 3})
    secret.put(OLD)
    secret.metadata(max_versions=2)
    for _ in range(4):
        secret.put(OLD)

    secret.openbao.call("GET", f"{secret.mount}/data/{PATH}?version=3")
    with pytest.raises(OpenBaoError):
        secret.openbao.call("GET", f"{secret.mount}/data/{PATH}?version=2")
