"""`certagent push` against a real store: what it stores, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from certagent.cli.main import main
from certagent.sources.vault.writing import VaultKVStore
from tests.support.material import a_set, fields, make_root, new_key, private_key_pem
from tests.support.operators import PATH, Secret
from tests.support.process import Finished, certagent

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
OLD = A.intermediate("cluster1").raw()
NEXT = A.intermediate("cluster1").raw()
OTHER_ROOT = B.intermediate("cluster1").raw()
SHORT = {"CERTAGENT_DISTRIBUTE": "200ms", "CERTAGENT_RETIRE": "200ms", "CERTAGENT_SLACK": "0s"}


@pytest.fixture
def secret(openbao, tmp_path):
    return Secret(openbao, openbao.kv(2), tmp_path)


@pytest.fixture
def secret_v1(openbao, tmp_path):
    return Secret(openbao, openbao.kv(1), tmp_path)


@pytest.fixture
def overtaken(monkeypatch, capsys):
    """Push while another push arrives between the look and the write."""

    def push(secret, raw, after):
        looked = getattr(VaultKVStore, after)

        def look(store, *given):
            seen = looked(store, *given)
            # Once: the message of a conflict looks again.
            monkeypatch.setattr(VaultKVStore, after, looked)
            secret.put(OTHER_ROOT)
            return seen

        monkeypatch.setattr(VaultKVStore, after, look)
        for name, value in secret.environ.items():
            monkeypatch.setenv(name, value)
        code = main(["push", secret.source, "--from", str(secret.directory(raw))])
        told = capsys.readouterr()
        return Finished(code, told.out, told.err)

    return push


class TestStoring:
    def test_the_first_set_becomes_version_1(self, secret):
        done = secret.push(OLD)

        assert done.code == 0, done.stderr
        assert "version 1 is stored, and was read back" in done.stdout
        assert secret.read() == (1, fields(OLD))

    def test_a_change_of_roots_is_shown_with_its_phases_and_dates(self, secret):
        secret.put(OLD)
        before = datetime.now(UTC)

        done = secret.push(OTHER_ROOT, "--format", "json", CERTAGENT_DISTRIBUTE="24h")

        assert done.code == 0, done.stderr
        shown = json.loads(done.stdout)
        assert [phase["phase"] for phase in shown["phases"]][:3] == [
            "distribute",
            "switch",
            "settled",
        ]
        assert [phase["signer"] for phase in shown["phases"]][:3] == ["1", "2", "2"]
        at = [datetime.fromisoformat(phase["at"]) for phase in shown["phases"]]
        assert timedelta(hours=23.9) < at[1] - before < timedelta(hours=24.1)
        assert timedelta(hours=48.9) < at[2] - before < timedelta(hours=49.1)
        assert [root["sha256"] for root in shown["rootsAdded"]] == [B.fingerprint]
        assert [root["sha256"] for root in shown["rootsRemoved"]] == [A.fingerprint]
        assert (shown["previous"], shown["version"], shown["stored"]) == ("1", "2", True)

    def test_a_root_that_is_dropped_is_told_to_stay_published_until_its_date(self, secret):
        secret.put(OLD)

        done = secret.push(OTHER_ROOT)

        assert f"+ root  CN=Root B  sha256 {B.fingerprint}" in done.stdout
        assert f"- root  CN=Root A  sha256 {A.fingerprint}  is published until 20" in done.stdout

    def test_a_new_intermediate_signs_at_once(self, secret):
        secret.put(OLD)

        done = secret.push(NEXT)

        assert "settled     signer version 2" in done.stdout

    def test_an_identical_set_is_not_stored_again(self, secret):
        secret.put(OLD)

        done = secret.push(OLD)

        assert (done.code, secret.read()[0]) == (0, 1)
        assert "holds this set already" in done.stdout

    def test_a_dry_run_shows_all_and_stores_nothing(self, secret):
        secret.put(OLD)

        done = secret.push(OTHER_ROOT, "--dry-run")

        assert (done.code, secret.read()[0]) == (0, 1)
        assert "distribute" in done.stdout
        assert "nothing was stored (--dry-run)" in done.stdout

    def test_fields_that_are_not_ours_are_kept(self, secret):
        secret.put(OLD, owner="mesh team", ticket={"id": 7})

        done = secret.push(NEXT)

        assert secret.read() == (2, {**fields(NEXT), "owner": "mesh team", "ticket": {"id": 7}})
        assert "owner kept" in done.stdout

    def test_field_names_of_the_configuration_are_used(self, secret, tmp_path):
        config = tmp_path / "certagent.yaml"
        config.write_text(
            f"vault: {{address: '{secret.openbao.address}', auth: {{role: istiod}}}}\n"
            "bundles:\n"
            "- name: mesh\n"
            f"  source: {{vaultKV: {{mount: {secret.mount}, path: {PATH},"
            " fields: {privateKey: key.pem}}}\n"
            "  output: {directory: /certs}\n"
        )

        done = secret.push(OLD, "--config", config)

        assert done.code == 0, done.stderr
        assert "key.pem" in secret.read()[1]
        assert "ca_key" not in secret.read()[1]

    def test_a_withdrawn_version_is_followed_by_the_next(self, secret):
        secret.put(OLD)
        secret.openbao.delete(secret.mount, PATH, 1)

        done = secret.push(NEXT)

        assert done.code == 0, done.stderr
        assert secret.read() == (2, fields(NEXT))

    def test_after_a_bad_version_a_good_one_is_stored(self, secret):
        secret.put(OLD)
        secret.put(replace(OLD, private_key=private_key_pem(new_key())))

        assert secret.push(NEXT).code == 0
        assert secret.read() == (3, fields(NEXT))

    def test_the_policy_of_the_readme_s_path_and_create_and_update_suffice(self, secret):
        secret.put(OLD)
        token = secret.token("read", "create", "update")

        done = secret.push(NEXT, VAULT_TOKEN=token)

        assert done.code == 0, done.stderr
        assert "retention-unknown" in done.stdout
        assert secret.read()[0] == 2


class TestTwoPipelines:
    def test_of_two_pushes_at_once_one_wins_and_the_other_is_told(self, secret):
        secret.put(OLD)
        sets = [A.intermediate(f"cluster{number}").raw() for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(secret.push, sets))

        stored, _ = secret.read()
        assert stored == 1 + sum(each.code == 0 for each in done)
        for each in done:
            assert each.code in {0, 73}, each.stderr
            assert (each.code == 0) == ("is stored" in each.stdout)
            assert each.code == 0 or "Somebody changed" in each.stderr

    @pytest.mark.parametrize("after", ["read", "retention"])
    def test_a_version_that_came_in_between_is_never_overwritten(self, secret, overtaken, after):
        """After the first look, and after the last one: a stale check-and-set."""
        secret.put(OLD)

        done = overtaken(secret, NEXT, after)

        assert done.code == 73
        assert "its newest version is 2 now" in done.stderr
        assert secret.read() == (2, fields(OTHER_ROOT))

    def test_what_is_read_back_must_be_what_was_stored(self, secret, monkeypatch, capsys):
        monkeypatch.setattr(VaultKVStore, "load", lambda *_: OTHER_ROOT)
        for name, value in secret.environ.items():
            monkeypatch.setenv(name, value)

        code = main(["push", secret.source, "--from", str(secret.directory(OLD))])

        assert code == 73
        assert "does not hold what was stored" in capsys.readouterr().err


class TestRevocationLists:
    """C22."""

    CA = A.intermediate("cluster1")
    LISTED = CA.raw(crls=CA.crl() + A.crl())

    def test_lists_are_stored_with_the_set(self, secret):
        assert secret.push(self.LISTED).code == 0
        assert secret.read() == (1, fields(self.LISTED))

    def test_a_set_without_lists_after_one_with_them_is_65_and_stored_with_force(self, secret):
        secret.push(self.LISTED)

        refused = secret.push(NEXT, "--rollback")
        assert refused.code == 65
        assert "error crl-missing" in refused.stdout

        forced = secret.push(NEXT, "--force")
        assert forced.code == 0
        assert "ca_crl removed" in forced.stdout
        assert secret.read() == (2, fields(NEXT))


class TestRefusals:
    @pytest.mark.parametrize("format_", ["text", "json"])
    def test_a_set_that_does_not_verify_is_65_with_its_findings(self, secret, format_):
        done = secret.push(
            replace(OLD, private_key=private_key_pem(new_key())), "--format", format_
        )

        assert done.code == 65
        assert "key-mismatch" in done.stdout
        assert not secret.exists()

    def test_a_set_that_does_not_verify_is_refused_while_the_store_is_down(self, secret):
        bad = replace(OLD, private_key=private_key_pem(new_key()))

        done = secret.push(bad, VAULT_ADDR="http://127.0.0.1:9")

        assert done.code == 65

    def test_a_root_that_is_not_pinned_is_65(self, secret, tmp_path):
        config = tmp_path / "certagent.yaml"
        config.write_text(
            f"vault: {{address: '{secret.openbao.address}', auth: {{method: token}}}}\n"
            f"trust: {{roots: ['sha256:{A.fingerprint}']}}\n"
            "bundles: [{name: mesh, source: {files: {directory: /x}}, output: {directory: /y}}]\n"
        )

        done = secret.push(OTHER_ROOT, "--config", config)

        assert done.code == 65
        assert "root-not-pinned" in done.stdout

    @pytest.mark.parametrize("age", ["the set of an older version", "an older CA"])
    def test_an_older_set_is_65_and_stored_with_rollback(self, secret, age):
        older = A.intermediate("cluster1", not_before=datetime(2025, 2, 1, tzinfo=UTC)).raw()
        newer = A.intermediate("cluster1", not_before=datetime(2025, 3, 1, tzinfo=UTC)).raw()
        if age == "the set of an older version":
            secret.put(older)
        secret.put(newer)
        version, _ = secret.read()

        refused = secret.push(older)
        assert refused.code == 65
        assert "older-than-stored" in refused.stdout
        assert secret.read()[0] == version

        assert secret.push(older, "--rollback").code == 0
        assert secret.read() == (version + 1, fields(older))

    def test_a_set_that_dies_before_its_distribution_is_over_is_65(self, secret):
        secret.put(OLD)
        soon = datetime.now(UTC) + timedelta(hours=20)

        done = secret.push(B.intermediate("cluster1", not_after=soon).raw())

        assert done.code == 65
        assert "expires-before-switch" in done.stdout
        assert secret.read()[0] == 1

    def test_a_push_that_would_cut_off_a_needed_version_is_65_and_stored_with_force(self, secret):
        secret.put(OLD)
        secret.metadata(max_versions=1)

        refused = secret.push(OTHER_ROOT)
        assert refused.code == 65
        assert "history-cut" in refused.stdout
        assert "version 1 would be cut off" in refused.stdout
        assert secret.read()[0] == 1

        assert secret.push(OTHER_ROOT, "--force").code == 0

    def test_versions_that_nothing_needs_may_be_cut_off(self, secret):
        """Two windows later, only the version in force matters."""
        secret.put(OLD)
        secret.put(NEXT)
        secret.metadata(max_versions=2)
        secret.wait_past(seconds=1)

        done = secret.push(A.intermediate("cluster1").raw(), **SHORT)

        assert done.code == 0, done.stdout

    def test_few_versions_and_their_deletion_are_warned_of(self, secret):
        secret.put(OLD)
        secret.metadata(max_versions=5, delete_version_after="768h")

        done = secret.push(NEXT)

        assert done.code == 0, done.stdout
        assert "warning few-versions" in done.stdout
        assert "warning versions-deleted" in done.stdout

    def test_a_root_dropped_from_a_cut_history_is_65_and_stored_with_force(self, secret):
        """Somebody may have signed under root A in a version that is gone."""
        both = replace(OTHER_ROOT, roots=A.pem + B.pem)
        secret.put(OLD)
        secret.put(both)
        secret.metadata(max_versions=1)
        secret.put(both)
        secret.metadata(max_versions=10)

        refused = secret.push(OTHER_ROOT)
        assert refused.code == 65
        assert "root-dropped" in refused.stdout
        assert "history-incomplete" in refused.stdout
        assert secret.push(OTHER_ROOT, "--force").code == 0

    def test_an_old_ca_that_expires_too_soon_is_warned_of_with_the_time(self, secret):
        soon = datetime.now(UTC) + timedelta(hours=10)
        secret.put(A.intermediate("cluster1", not_after=soon).raw())

        done = secret.push(OTHER_ROOT)

        assert done.code == 0, done.stdout
        assert "warning early-switch" in done.stdout

    def test_a_token_that_may_only_read_is_77_and_told_what_it_lacks(self, secret):
        secret.put(OLD)

        done = secret.push(NEXT, VAULT_TOKEN=secret.token("read"))

        assert done.code == 77
        assert f'"create" and "update" on "{secret.mount}/data/{PATH}"' in done.stderr
        assert secret.read()[0] == 1

    def test_a_directory_as_the_store_is_64(self, tmp_path):
        done = certagent("push", f"file:{tmp_path}", "--from", tmp_path)

        assert done.code == 64
        assert "no store to write to" in done.stderr

    def test_without_a_login_is_78_and_names_vault_token(self, secret):
        done = secret.push(OLD, VAULT_TOKEN=None)

        assert done.code == 78
        assert "VAULT_TOKEN" in done.stderr

    def test_a_directory_without_a_set_is_66(self, secret, tmp_path):
        done = certagent("push", secret.source, "--from", tmp_path / "none", **secret.environ)

        assert done.code == 66

    def test_a_store_that_is_down_is_69(self, secret):
        assert secret.push(OLD, VAULT_ADDR="http://127.0.0.1:9").code == 69


class TestKeyValueVersion1:
    def test_a_set_is_stored_with_a_warning_and_other_fields_stay(self, secret_v1):
        secret_v1.openbao.put_v1(secret_v1.mount, PATH, {**fields(OLD), "owner": "mesh team"})

        done = secret_v1.push(NEXT)

        assert done.code == 0, done.stdout
        assert "warning no-history" in done.stdout
        assert secret_v1.read_v1() == {**fields(NEXT), "owner": "mesh team"}

    def test_a_root_cannot_be_replaced_at_once(self, secret_v1):
        secret_v1.push(OLD)

        done = secret_v1.push(OTHER_ROOT)

        assert done.code == 65
        assert "root-dropped" in done.stdout
        assert "root-unknown" in done.stdout
        assert secret_v1.read_v1() == fields(OLD)

    def test_a_root_can_be_added_by_hand(self, secret_v1):
        secret_v1.push(OLD)

        assert secret_v1.push(replace(OLD, roots=A.pem + B.pem)).code == 0

    def test_force_replaces_it_nevertheless(self, secret_v1):
        secret_v1.push(OLD)

        assert secret_v1.push(OTHER_ROOT, "--force").code == 0
        assert secret_v1.read_v1() == fields(OTHER_ROOT)

    def test_an_identical_set_is_not_stored_again(self, secret_v1):
        secret_v1.push(OLD)

        assert "holds this set already" in secret_v1.push(OLD).stdout


def test_no_output_holds_key_or_token(secret):
    key = OLD.private_key.decode().splitlines()[1]
    for flags in ((), ("--dry-run",), ("--format", "json"), ("--rollback",)):
        done = secret.push(OLD, *flags)
        assert key not in done.stdout + done.stderr
        assert secret.openbao.token not in done.stdout + done.stderr


def test_a_set_from_nowhere_else_verifies_in_init(secret, tmp_path):
    """What push stores is what an agent publishes."""
    secret.push(a_set())

    done = certagent(
        "init", CERTAGENT_SOURCE=secret.source, ROOT_CA_DIR=tmp_path / "out", **secret.environ
    )

    assert done.code == 0, done.stderr
