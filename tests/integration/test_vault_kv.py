"""Secrets of a real OpenBao, as a source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from certagent.config.model import (
    KubernetesAuth,
    PartNamesConfig,
    TokenAuth,
    VaultConfig,
)
from certagent.config.model import VaultKVSource as Config
from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound
from certagent.sources.vault.connection import VaultConnection
from certagent.sources.vault.kv import VaultKVSource

PARTS = {"ca_key": "key", "ca_cert": "cert", "cert_chain": "chain", "root_cert": "root"}


def parts(number):
    return {name: f"{text} {number}" for name, text in PARTS.items()}


@pytest.fixture
def connect(openbao):
    made = []

    def connect(*policies, namespace="", token=""):
        token = token or openbao.create_token(*policies, namespace=namespace)
        config = VaultConfig(address=openbao.address, auth=TokenAuth(), namespace=namespace)
        made.append(VaultConnection(config, environment_token=token))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def mount(openbao):
    """A KV v2 mount."""
    return openbao.kv()


@pytest.fixture
def v2(openbao, connect, mount):
    """A source on that mount, with a policy that reads its one path and nothing else."""
    return source(connect(openbao.policy(f"{mount}/data/istiod/certs")), mount)


def source(connection, mount, path="istiod/certs", **options):
    return VaultKVSource(connection, Config(mount=mount, path=path, **options))


def versions(source):
    return [(revision.version, revision.withdrawn) for revision in source.revisions()]


class TestVersion2:
    @pytest.fixture
    def put(self, openbao, mount):
        return lambda number: openbao.put(mount, "istiod/certs", parts(number))

    def test_a_revision_has_its_number_its_time_and_its_parts(self, v2, put, mount):
        put(1)

        (revision,) = v2.revisions()

        assert v2.name == f"vault:{mount}/istiod/certs"
        assert revision.version == "1"
        assert revision.created_at.tzinfo is UTC
        assert abs(datetime.now(UTC) - revision.created_at) < timedelta(minutes=1)
        assert revision.load().private_key == b"key 1"
        assert revision.load().roots == b"root 1"

    def test_older_revisions_follow_and_cost_a_request_each_when_asked_for(self, v2, put):
        for number in (1, 2, 3):
            put(number)
        revisions = v2.revisions()
        requests = v2._connection.requests

        assert next(revisions).version == "3"
        assert requests == {"ok": 2}  # which KV version, and the secret
        assert [revision.load().certificate for revision in revisions] == [b"cert 2", b"cert 1"]
        assert requests == {"ok": 4}

    def test_an_unchanged_poll_is_one_request(self, v2, put):
        put(1)
        next(v2.revisions())
        requests = v2._connection.requests.total()

        for _ in range(100):
            next(v2.revisions())

        assert v2._connection.requests.total() - requests == 100

    def test_deleted_and_destroyed_versions_are_tombstones(self, v2, put, openbao, mount):
        for number in (1, 2, 3, 4):
            put(number)
        openbao.delete(mount, "istiod/certs", 2, 4)
        openbao.destroy(mount, "istiod/certs", 3)

        newest, destroyed, deleted, first = v2.revisions()

        assert newest.version == "4"
        assert newest.withdrawn.startswith(f"deleted at {datetime.now(UTC):%Y-}")
        assert newest.created_at is not None
        assert (destroyed.version, destroyed.withdrawn) == ("3", "destroyed")
        assert deleted.withdrawn.startswith("deleted at")
        assert first.load().private_key == b"key 1"
        with pytest.raises(SecretNotFound, match=r"Version 3 .* was withdrawn: destroyed"):
            destroyed.load()

    def test_a_version_that_was_undeleted_is_back(self, v2, put, openbao, mount):
        put(1)
        openbao.delete(mount, "istiod/certs", 1)
        assert next(v2.revisions()).withdrawn
        openbao.undelete(mount, "istiod/certs", 1)

        assert next(v2.revisions()).load().private_key == b"key 1"

    def test_the_history_ends_where_max_versions_cut_it_off(self, v2, put, openbao, mount):
        path = f"{mount}/metadata/istiod/certs"
        openbao.call("POST", path, {"max_versions": 2})
        for number in (1, 2, 3, 4):
            put(number)

        assert versions(v2) == [("4", ""), ("3", "")]
        requests = v2._connection.requests.total()
        next(v2.revisions())
        assert v2._connection.requests.total() - requests == 1  # and nothing was forgotten

    def test_a_version_that_will_expire_is_not_withdrawn_yet(self, v2, put, openbao, mount):
        path = f"{mount}/metadata/istiod/certs"
        openbao.call("POST", path, {"delete_version_after": "1h"})
        put(1)

        assert versions(v2) == [("1", "")]

    def test_a_secret_that_does_not_exist_is_named_with_what_was_read(self, v2, mount):
        with pytest.raises(SecretNotFound) as missing:
            next(v2.revisions())

        assert missing.value.message == f"There is no secret at {v2.name} (404)."
        assert f"'{mount}/data/istiod/certs' was read" in missing.value.hint

    def test_a_policy_that_forbids_is_told_with_the_path_to_allow(self, openbao, connect, mount):
        other = openbao.policy(f"{mount}/data/elsewhere")

        with pytest.raises(AccessDenied) as denied:
            next(source(connect(other), mount, kv_version=2).revisions())

        assert f'"read" on "{mount}/data/istiod/certs"' in denied.value.hint

    def test_fields_are_mapped_and_a_missing_one_is_refused(self, v2, openbao, mount):
        openbao.put(mount, "istiod/certs", {"k": "a", "c": "b", "h": "c", "r": "d", "l": "e"})
        fields = PartNamesConfig(private_key="k", certificate="c", chain="h", roots="r", crls="l")
        mapped = source(v2._connection, mount, fields=fields)

        assert next(mapped.revisions()).load().crls == b"e"
        with pytest.raises(MaterialRefused, match="There is no 'ca_key'; present: c, h, k, l, r"):
            next(v2.revisions()).load()

    def test_names_with_slashes_and_spaces_are_read(self, openbao, connect):
        mount = openbao.kv(mount="team/one/" + openbao.unique("kv"))
        openbao.put(mount, "a%20dir/the%20secret", parts(1))
        read = source(connect(token=openbao.token), f"/{mount}/", "a dir/the secret")

        assert next(read.revisions()).load().private_key == b"key 1"


class TestVersion1:
    @pytest.fixture
    def mount(self, openbao):
        return openbao.kv(1)

    @pytest.fixture
    def v1(self, openbao, connect, mount):
        openbao.put_v1(mount, "istiod/certs", parts(1))
        return source(connect(openbao.policy(f"{mount}/istiod/certs")), mount)

    def test_there_is_one_revision_named_by_its_content(self, v1, openbao, mount):
        (first,) = v1.revisions()
        (again,) = v1.revisions()
        openbao.put_v1(mount, "istiod/certs", parts(2))
        (second,) = v1.revisions()

        assert first.version == again.version != second.version
        assert first.version.startswith("sha256:")
        assert len(first.version) == len("sha256:") + 12
        assert first.created_at is None
        assert second.load().private_key == b"key 2"

    def test_fields_that_are_not_mapped_do_not_change_the_version(self, v1, openbao, mount):
        (before,) = v1.revisions()
        openbao.put_v1(mount, "istiod/certs", {**parts(1), "note": "hello"})

        (after,) = v1.revisions()

        assert before.version == after.version

    def test_a_missing_secret_and_a_forbidden_one_are_told_apart(self, v1, openbao, mount):
        with pytest.raises(AccessDenied, match=r'"read" on ".*/elsewhere"'):
            next(source(v1._connection, mount, "elsewhere", kv_version=1).revisions())
        openbao.call("DELETE", f"{mount}/istiod/certs")
        with pytest.raises(SecretNotFound) as missing:
            next(v1.revisions())

        assert f"'{mount}/istiod/certs' was read" in missing.value.hint


class TestDetection:
    @pytest.mark.parametrize(("real", "fixed"), [(1, 2), (2, 1)])
    def test_a_version_fixed_wrongly_finds_nothing_and_says_what_to_check(
        self, openbao, connect, real, fixed
    ):
        mount = openbao.kv(real)
        put = openbao.put if real == 2 else openbao.put_v1
        put(mount, "istiod/certs", parts(1))
        wrong = source(connect(token=openbao.token), mount, kv_version=fixed)

        with pytest.raises(SecretNotFound) as missing:
            next(wrong.revisions())

        assert "kvVersion" in missing.value.hint

    def test_the_version_is_asked_for_once(self, openbao, connect):
        mount = openbao.kv()
        openbao.put(mount, "istiod/certs", parts(1))
        connection = connect(token=openbao.token)
        read = source(connection, mount)

        for _ in range(3):
            next(read.revisions())

        assert connection.requests == {"ok": 4}

    def test_a_fixed_version_is_not_asked_for(self, openbao, connect):
        mount = openbao.kv()
        openbao.put(mount, "istiod/certs", parts(1))
        connection = connect(token=openbao.token)

        next(source(connection, mount, kv_version=2).revisions())

        assert connection.requests == {"ok": 1}

    def test_a_mount_that_is_upgraded_is_detected_again(self, openbao, connect):
        mount = openbao.kv(1)
        openbao.put_v1(mount, "istiod/certs", parts(1))
        read = source(connect(token=openbao.token), mount)
        assert next(read.revisions()).version.startswith("sha256:")
        openbao.call("DELETE", f"sys/mounts/{mount}")
        openbao.kv(2, mount)
        openbao.put(mount, "istiod/certs", parts(2))
        with pytest.raises(SecretNotFound, match="versioned"):
            next(read.revisions())

        assert next(read.revisions()).version == "1"

    def test_a_mount_that_cannot_be_seen_is_an_error_that_names_the_setting(self, connect):
        with pytest.raises(AccessDenied, match="did not tell which KV version") as refused:
            next(source(connect("default"), "nowhere").revisions())

        assert "set kvVersion to 1 or 2" in refused.value.hint

    def test_another_engine_is_not_read(self, connect, openbao):
        with pytest.raises(SecretNotFound, match="of type 'system', not key-value"):
            next(source(connect(token=openbao.token), "sys").revisions())

    def test_a_mount_given_too_short_is_corrected(self, connect, openbao):
        mount = openbao.kv(mount="long/" + openbao.unique("kv"))
        short = source(connect(token=openbao.token), "long", mount.removeprefix("long/") + "/x")

        with pytest.raises(SecretNotFound, match=f"is '{mount}', not 'long'"):
            next(short.revisions())


def test_a_namespace_is_honoured(openbao, connect):
    namespace = openbao.namespace()
    mount = openbao.kv(namespace=namespace)
    openbao.put(mount, "istiod/certs", parts(1), namespace=namespace)
    policy = openbao.policy(f"{mount}/data/istiod/certs", namespace=namespace)
    inside = connect(policy, namespace=namespace)

    assert next(source(inside, mount).revisions()).load().private_key == b"key 1"
    with pytest.raises(AccessDenied):
        next(source(connect("default"), mount).revisions())


def test_the_walk_through_of_tetrates_article_works(openbao, cluster, tmp_path):
    """github.com/tetratelabs/istio-vault-ext-certs: KV v1, a mount and a login per cluster."""
    mounts = {number: openbao.kv(1, f"kubernetes-cluster{number}-secrets") for number in (1, 2)}
    for number, mount in mounts.items():
        openbao.put_v1(mount, "istiod-service/certs", parts(number))
    policy = openbao.policy(f"{mounts[1]}/istiod-service/certs")
    login = openbao.kubernetes_auth(cluster, "kubernetes-cluster1")
    openbao.kubernetes_role(login, "istiod", policy)
    token = tmp_path / "token"
    token.write_text(cluster.mint())
    auth = KubernetesAuth(role="istiod", mount=login, token_file=str(token))
    connection = VaultConnection(VaultConfig(address=openbao.address, auth=auth))
    own, other = (source(connection, mount, "istiod-service/certs") for mount in mounts.values())

    (revision,) = own.revisions()

    assert revision.load().private_key == b"key 1"
    with pytest.raises(AccessDenied):
        next(other.revisions())
    connection.close()


def test_reading_stops_where_the_caller_stops(openbao, connect):
    mount = openbao.kv()
    for number in range(5):
        openbao.put(mount, "istiod/certs", parts(number))
    connection = connect(token=openbao.token)

    numbers = [r.version for r in islice(source(connection, mount, kv_version=2).revisions(), 2)]

    assert numbers == ["5", "4"]
    assert connection.requests == {"ok": 2}
