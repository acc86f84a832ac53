"""Key Vault as a source: what a poll costs, what it yields, and what it says where it cannot."""

from __future__ import annotations

import base64
import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from certagent.chronicle import Chronicle
from certagent.config.model import SecretNamesConfig
from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.material.history import Policy
from certagent.material.kinds import CA
from certagent.material.serving import tls
from certagent.sources.azure.history import TAG
from certagent.sources.azure.shelf import RELIST
from tests.support.azure.faults import answers, meanwhile
from tests.support.azure.operator import SECRETS, store, store_part
from tests.support.azure.vault import PKCS12
from tests.support.azure.wire import Reply
from tests.support.material import fields, make_root, pem

HOUR = timedelta(hours=1)
TLS = tls()


@pytest.fixture(scope="module")
def old():
    return make_root().intermediate().raw()


@pytest.fixture(scope="module")
def new():
    return make_root().intermediate().raw()


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


@pytest.fixture
def start(azure):
    """A day ago, in whole seconds."""
    return datetime.fromtimestamp(int(azure.clock.now()), UTC) - timedelta(days=1)


@pytest.fixture
def polled(azure, vault):
    """Poll, and return the paths that were asked for."""

    def polled_(source, read=next) -> list[str]:
        before = len(azure.requests(vault))
        read(source.revisions())
        return [path for _, path, _ in azure.requests(vault)[before:]]

    return polled_


def versions(source) -> list[str]:
    return [each.version for each in source.revisions()]


class TestPolls:
    def test_an_unchanged_one_is_a_list_for_each_secret_and_no_value(
        self, vault, source, old, polled
    ):
        store(vault, old)
        secrets = source()
        next(secrets.revisions()).load()

        asked = polled(secrets)

        assert asked == [f"/secrets/{name}/versions" for name in SECRETS.values()]

    def test_older_sets_that_are_known_cost_nothing_more(
        self, vault, source, old, new, start, polled
    ):
        store(vault, old, created_on=start)
        store(vault, new)
        secrets = source()
        list(secrets.revisions())

        assert len(polled(secrets, list)) == 4

    def test_a_set_is_read_once_and_its_parts_are_shared_in_a_pass(
        self, azure, vault, source, old, start
    ):
        store(vault, old, created_on=start)
        store_part(vault, old, "roots")
        secrets = source()
        for each in secrets.revisions():
            each.load()

        values = [path for _, path, status in azure.requests(vault) if "versions" not in path]
        assert len(values) == 5

    @pytest.mark.parametrize("form", [{"secret": "all"}, {"certificate": "all"}])
    def test_one_secret_is_one_request(self, vault, source, polled, form):
        vault.set("all", "{}")
        secrets = source(TLS, **form)
        next(secrets.revisions())

        assert polled(secrets) == ["/secrets/all/versions"]

    def test_of_a_long_history_the_newest_version_is_looked_at(self, vault, source, start, polled):
        for day in range(30):
            vault.set("all", "{}", created_on=start - day * HOUR)
        moment = 0.0
        secrets = source(secret="all", clock=lambda: moment)
        next(secrets.revisions())

        assert polled(secrets) == ["/secrets/all"]
        moment = RELIST + 1
        assert len(polled(secrets)) == 2

    def test_a_new_version_in_a_long_history_is_seen_at_once(self, vault, source, start):
        for day in range(30):
            vault.set("all", "{}", created_on=start - day * HOUR)
        secrets = source(secret="all")
        before = versions(secrets)
        vault.set("all", "{}")

        assert len(versions(secrets)) == len(before) + 1 == 31

    def test_and_so_is_that_the_newest_was_disabled(self, vault, source, start):
        for day in range(30):
            vault.set("all", "{}", created_on=start - day * HOUR)
        secrets = source(secret="all")
        next(secrets.revisions())
        vault.disable("all")

        assert next(secrets.revisions()).withdrawn.startswith("disabled at")

    def test_a_history_without_end_is_not_read(self, vault, source, start, monkeypatch):
        monkeypatch.setattr("certagent.sources.azure.shelf.MAX_VERSIONS", 20)
        for day in range(30):
            vault.set("all", "{}", created_on=start - day * HOUR)

        with pytest.raises(SourceUnavailable, match="has more than 20 versions"):
            next(source(secret="all").revisions())

    def test_a_disabled_newest_version_of_a_long_history_costs_no_more(
        self, vault, source, start, polled
    ):
        for day in range(30):
            vault.set("all", "{}", created_on=start - day * HOUR)
        vault.disable("all")
        secrets = source(secret="all")
        next(secrets.revisions())

        assert polled(secrets) == ["/secrets/all"]

    def test_a_start_lists_each_secret_once_where_nothing_is_being_stored(
        self, azure, vault, source, old, start
    ):
        store(vault, old, created_on=start)
        next(source().revisions()).load()

        asked = [path for _, path, status in azure.requests(vault) if status == 200]
        assert len(asked) == len(set(asked)) == 8

    def test_lists_without_a_date_are_read_again(self, azure, vault, source, old, start):
        store(vault, old, created_on=start)
        azure.faults.inject(
            lambda call: Reply(200, call.proceed().body), path="/root-cert/versions", times=None
        )
        next(source().revisions())

        asked = [path for _, path, status in azure.requests(vault) if status == 200]
        assert asked == [f"/secrets/{name}/versions" for name in SECRETS.values()] * 2

    def test_one_secret_is_listed_once_also_where_it_was_stored_just_now(
        self, azure, vault, source
    ):
        vault.set("all", "{}")
        next(source(secret="all").revisions())

        asked = [path for _, path, status in azure.requests(vault) if status == 200]
        assert asked == ["/secrets/all/versions"]

    def test_a_list_without_end_is_not_read(self, azure, vault, source, monkeypatch):
        monkeypatch.setattr("certagent.sources.azure.shelf._MAX_PAGES", 5)
        body = {"value": [], "nextLink": f"{vault.url}/secrets/all/versions?api-version=7.4"}
        azure.faults.inject(answers(200, body), path="/versions", times=None)

        with pytest.raises(SourceUnavailable, match="a list of them without end"):
            next(source(secret="all").revisions())
        assert len(azure.requests(vault)) == 6

    def test_what_is_no_list_is_not_taken_for_an_empty_one(self, azure, source):
        """The SDK would: so a proxy's `{}` would look like secrets that nobody has stored."""
        azure.faults.inject(answers(200, {}), path="/versions", times=None)

        with pytest.raises(SourceUnavailable, match="answered what cannot be understood"):
            next(source().revisions())

    def test_lists_that_change_while_they_are_read_are_read_again(
        self, azure, vault, source, old, new
    ):
        store(vault, old)
        secrets = source()
        list(secrets.revisions())
        azure.clock.offset = 3600
        azure.faults.inject(meanwhile(lambda: store(vault, new)), path="/root-cert/versions")

        assert next(secrets.revisions()).load() == new

    def test_lists_that_never_stop_changing_are_taken_as_they_are(self, azure, vault, source, old):
        store(vault, old)
        azure.faults.inject(
            meanwhile(lambda: store_part(vault, old, "roots")),
            path="/root-cert/versions",
            times=None,
        )

        assert next(source().revisions()).load() == old


class TestSets:
    def test_a_revision_has_the_parts_as_they_are_stored(self, vault, source, old):
        store(vault, old)

        (revision,) = source().revisions()

        assert revision.load() == old
        assert revision.is_first
        assert revision.created_at is not None

    def test_names_of_ones_own_are_read(self, vault, source, old):
        vault.set("istio-key", old.private_key.decode())
        store(vault, old, [part for part in SECRETS if part != "private_key"])

        names = SecretNamesConfig(private_key="istio-key")
        assert source(secrets=names).name == "azure:mesh"
        assert next(source(secrets=names).revisions()).load() == old

    def test_lists_of_revocation_are_read_only_where_they_are_named(self, vault, source, old):
        store(vault, old)
        vault.set("ca-crl", "a list")
        named = source(secrets=SecretNamesConfig(crls="ca-crl"))

        assert next(source().revisions()).load().crls == b""
        assert next(named.revisions()).load().crls == b"a list"

    def test_named_ones_may_be_missing(self, vault, source, old):
        store(vault, old)
        named = source(secrets=SecretNamesConfig(crls="ca-crl"))

        assert next(named.revisions()).load() == old

    def test_a_gateways_roots_are_not_those_that_the_mesh_has_by_that_name(
        self, vault, source, old
    ):
        store(vault, old)
        vault.set("tls-key", "key")
        vault.set("tls-cert", "cert")

        assert next(source(TLS).revisions()).load().roots == b""

    def test_a_missing_secret_is_told_by_its_name(self, vault, source, old):
        store(vault, old, ["certificate", "chain"])

        with pytest.raises(SecretNotFound, match="has no secret 'ca-key' and no 'root-cert'"):
            next(source().revisions())

    def test_a_deleted_secret_is_missing_until_it_is_recovered(self, vault, source, old):
        store(vault, old)
        secrets = source()
        before = versions(secrets)
        vault.delete("ca-key")

        with pytest.raises(SecretNotFound, match="has no secret 'ca-key'") as refused:
            next(secrets.revisions())
        assert "az keyvault secret recover" in refused.value.hint
        vault.recover("ca-key")
        assert versions(secrets) == before

    def test_a_list_that_is_refused_as_not_found_is_one_that_is_empty(
        self, azure, vault, source, old
    ):
        store(vault, old)
        body = {"error": {"code": "SecretNotFound", "message": "A secret …"}}
        azure.faults.inject(answers(404, body), path="/ca-key/versions", times=None)

        with pytest.raises(SecretNotFound, match="has no secret 'ca-key'"):
            next(source().revisions())

    def test_of_one_second_the_present_version_is_the_newest(self, vault, source, start):
        for number in range(5):
            vault.set("all", str(number), created_on=start)
        secrets = source(secret="all")

        before = versions(secrets)
        assert before[0].endswith(next(secrets.revisions()).version[-8:])
        assert versions(secrets) == before
        newest = vault.version("all").id
        assert secrets._shelves[0].versions[-1].id == newest

    def test_where_that_one_is_disabled_it_is_still_withdrawn(self, vault, source, start):
        vault.set("all", "1", created_on=start)
        vault.disable("all", vault.set("all", "2", created_on=start))

        withdrawn = [bool(each.withdrawn) for each in source(secret="all").revisions()]

        assert sorted(withdrawn) == [False, True]


class TestAttributes:
    def test_a_disabled_version_is_a_tombstone_and_is_not_read(self, vault, source, old, start):
        store(vault, old, created_on=start)
        store_part(vault, old, "roots")
        vault.disable("root-cert")

        newest, before = source().revisions()

        assert newest.withdrawn.startswith("disabled at 20")
        assert newest.withdrawn_at is not None
        with pytest.raises(SecretNotFound, match="was disabled at"):
            newest.load()
        assert not before.withdrawn

    def test_one_that_is_disabled_between_the_list_and_the_read_is_told_as_such(
        self, vault, source, old
    ):
        store(vault, old)
        revision = next(source().revisions())
        vault.disable("ca-key")

        with pytest.raises(SecretNotFound, match="is disabled"):
            revision.load()

    def test_one_that_is_deleted_between_the_list_and_the_read_is_told_as_such(
        self, vault, source, old
    ):
        store(vault, old)
        revision = next(source().revisions())
        vault.delete("ca-key")

        with pytest.raises(SecretNotFound, match="There is no 'ca-key'"):
            revision.load()

    def test_an_expiry_date_is_passed_on(self, vault, source, old, start):
        store(vault, old, expires=start + 100 * HOUR)

        assert next(source().revisions()).expires_at == start + 100 * HOUR

    def test_that_the_newest_set_has_expired_is_told_once(self, vault, source, old, start, caplog):
        store(vault, old, created_on=start - 99 * HOUR, expires=start - HOUR)
        store(vault, old, created_on=start, expires=start + HOUR)
        secrets = source()
        list(secrets.revisions())
        list(secrets.revisions())

        told = [each.message for each in caplog.records if "expired at" in each.message]
        assert len(told) == 1
        assert f"expired at {start + HOUR:%FT%TZ}, the expiration date" in told[0]

    def test_a_version_is_not_used_before_its_activation_date_and_that_is_told_once(
        self, vault, source, old, new, start, caplog
    ):
        store(vault, old, created_on=start)
        store(vault, new, not_before=start + 48 * HOUR)
        clock = start + 25 * HOUR
        secrets = source(now=lambda: clock)

        assert next(secrets.revisions()).load() == old
        next(secrets.revisions())
        assert len([each for each in caplog.records if "activation date" in each.message]) == 4
        clock = start + 48 * HOUR
        revision = next(secrets.revisions())
        assert (revision.load(), revision.created_at) == (new, clock)

    def test_where_nothing_may_be_used_yet_that_is_told(self, vault, source, old, start):
        store(vault, old, not_before=start + 48 * HOUR)

        with pytest.raises(SecretNotFound, match="no set that may be used before"):
            next(source().revisions())


class TestWithoutThePermissionToList:
    @pytest.fixture(autouse=True)
    def get_alone(self, vault, app):
        vault.revoke(app, "list")

    def test_the_newest_versions_are_one_revision_and_that_is_told_once(
        self, vault, source, old, new, start, caplog
    ):
        store(vault, old, created_on=start)
        store(vault, new)
        secrets = source()

        (revision,) = secrets.revisions()

        assert revision.load() == new
        assert not revision.is_first
        assert versions(secrets) == [revision.version]
        assert len([each for each in caplog.records if "may not list" in each.message]) == 1
        assert "Key Vault Secrets User" in caplog.text

    def test_its_name_is_the_same_as_with_the_permission(self, vault, app, source, old):
        store(vault, old)
        (without,) = versions(source())
        vault.grant(app, "list")

        assert versions(source()) == [without]

    def test_a_poll_is_a_request_for_each_secret(self, vault, source, old, polled):
        store(vault, old)
        secrets = source()
        next(secrets.revisions())

        assert polled(secrets) == [f"/secrets/{name}" for name in SECRETS.values()]

    def test_a_permission_that_is_given_later_is_noticed(self, vault, app, source, old, start):
        store(vault, old, created_on=start)
        store_part(vault, old, "roots")
        moment = 0.0
        secrets = source(clock=lambda: moment)
        assert len(versions(secrets)) == 1
        vault.grant(app, "list")
        moment = 601.0

        assert len(versions(secrets)) == 2

    def test_a_role_that_comes_later_than_the_pod_brings_the_history_at_once(
        self, vault, app, source, old, start, caplog
    ):
        store(vault, old, created_on=start)
        store_part(vault, old, "roots")
        vault.revoke(app, "get")
        secrets = source()
        with pytest.raises(AccessDenied):
            next(secrets.revisions())
        vault.grant(app, "get", "list")

        assert len(versions(secrets)) == 2
        assert "may not list" not in caplog.text

    def test_a_refusal_that_has_passed_when_the_newest_are_read_does_not_hide_the_history(
        self, azure, vault, app, source, old
    ):
        store(vault, old, created_on=1_700_000_000)
        store_part(vault, old, "roots")
        vault.grant(app, "list")
        azure.faults.inject(answers(403), path="/versions$")

        assert len(versions(source())) == 2

    def test_a_push_in_the_middle_is_a_mixture_that_is_refused(
        self, vault, source, old, new, start
    ):
        store(vault, old, created_on=start, tags={TAG: "X"})
        store(vault, new, ["private_key"], tags={TAG: "Y"})

        (revision,) = source().revisions()

        assert revision.is_mixture
        with pytest.raises(MaterialRefused, match="A push has not stored all of its parts: X or Y"):
            revision.load()

    def test_what_is_stored_by_hand_over_a_push_is_no_push_in_the_middle(
        self, vault, app, source, old, new, start
    ):
        store(vault, old, created_on=start, tags={TAG: "X"})
        store_part(vault, new, "roots")
        (revision,) = source().revisions()

        assert revision.load().roots == new.roots
        vault.grant(app, "list")
        assert next(source().revisions()).version == revision.version

    def test_a_disabled_version_hides_the_one_before(self, vault, source, old, start):
        store(vault, old, created_on=start)
        store_part(vault, old, "roots")
        vault.disable("root-cert")

        with pytest.raises(SecretNotFound, match="newest version of 'root-cert' in azure:mesh is"):
            next(source().revisions())

    def test_and_so_does_one_that_is_not_to_be_used_yet(self, vault, source, old, start):
        store(vault, old, not_before=start + 48 * HOUR)

        with pytest.raises(SecretNotFound, match="is not to be used before") as refused:
            next(source().revisions())
        assert "allowed to list" in refused.value.hint

    def test_and_one_that_has_expired_is_told(self, vault, source, old, start, caplog):
        store(vault, old, created_on=start, expires=start + HOUR)

        next(source().revisions())

        assert f"expired at {start + HOUR:%FT%TZ}, the expiration date" in caplog.text

    def test_a_missing_secret_is_told_by_its_name(self, vault, source, old):
        store(vault, old, ["private_key"])

        with pytest.raises(SecretNotFound, match="There is no 'ca-cert'"):
            next(source().revisions())

    def test_an_optional_one_may_be_missing(self, vault, source, old):
        store(vault, old)

        named = source(secrets=SecretNamesConfig(crls="ca-crl"))

        assert next(named.revisions()).load() == old


class TestRefusals:
    def test_without_any_permission_the_role_is_named(self, vault, app, source, old):
        store(vault, old)
        vault.revoke(app, "get", "list")

        with pytest.raises(AccessDenied, match="ForbiddenByRbac") as refused:
            next(source().revisions())

        assert "Key Vault Secrets User" in refused.value.hint
        assert len(str(refused.value).splitlines()) <= 3

    def test_access_policies_refuse_too(self, vault, app, source, old):
        store(vault, old)
        vault.authorization = "policies"
        vault.revoke(app, "get", "list")

        with pytest.raises(AccessDenied, match="403 AccessDenied: The user, group or application"):
            next(source().revisions())

    def test_a_firewall_is_told_as_such(self, vault, source, old):
        store(vault, old)
        vault.firewalled = True

        with pytest.raises(AccessDenied, match=r"let nobody in from here.*ForbiddenByFirewall"):
            next(source().revisions())

    def test_a_token_that_is_never_taken_is_denied(self, azure, vault, source, old):
        store(vault, old)
        azure.faults.inject(answers(401), times=None)

        with pytest.raises(AccessDenied, match="401") as refused:
            next(source().revisions())
        assert "is the vault in the tenant of azure.credential" in refused.value.hint

    @pytest.mark.parametrize("status", [400, 409])
    def test_another_refusal_is_tried_again(self, azure, vault, source, old, status):
        store(vault, old)
        azure.faults.inject(answers(status), times=None)

        with pytest.raises(SourceUnavailable, match=str(status)):
            next(source().revisions())

    def test_an_outage_is_passed_on(self, azure, vault, source, old):
        store(vault, old)
        azure.faults.inject(answers(503), times=None)

        with pytest.raises(SourceUnavailable, match="503"):
            next(source().revisions())


class TestOneSecret:
    def test_it_has_the_fields_of_vaults_secret_as_json(self, vault, source, old):
        vault.set("all", json.dumps(fields(old)))

        secrets = source(secret="all")

        assert secrets.name == "azure:mesh/all"
        assert next(secrets.revisions()).load() == old

    def test_what_is_no_json_is_refused(self, vault, source):
        vault.set("all", "-----BEGIN CERTIFICATE-----")

        with pytest.raises(MaterialRefused, match="'all' is not a JSON object"):
            next(source(secret="all").revisions()).load()

    def test_what_lacks_a_part_is_refused_by_its_name(self, vault, source, old):
        vault.set("all", json.dumps({**fields(old), "ca_key": None}))

        with pytest.raises(MaterialRefused, match="There is no 'ca_key'"):
            next(source(secret="all").revisions()).load()

    def test_what_is_too_large_is_refused_by_its_name(self, vault, source, old):
        vault.set("all", json.dumps({**fields(old), "ca_key": "x" * (1 << 21)}))

        with pytest.raises(MaterialRefused, match="'ca_key' has 2097152 bytes, over the limit"):
            next(source(secret="all").revisions()).load()


class TestCertificateObjects:
    @pytest.mark.parametrize("form", ["pkcs12", "pem"])
    def test_a_ca_has_its_roots_from_a_secret(self, vault, source, ca, form):
        vault.certificate("ca", ca.key, [ca.certificate, ca.root.certificate], form=form)
        vault.set("roots", pem(ca.root).decode())

        secrets = source(certificate="ca", roots="roots")
        raw = next(secrets.revisions()).load()

        assert secrets.name == "azure:mesh/ca"
        assert (raw.certificate, raw.chain, raw.roots) == (pem(ca), pem(ca, ca.root), pem(ca.root))
        assert CA.verify(CA.decode(raw), datetime.now(UTC))

    def test_a_gateway_has_its_chain_behind_its_certificate(self, vault, source, ca):
        vault.certificate("ingress", ca.key, [ca.certificate, ca.root.certificate])

        raw = next(source(TLS, certificate="ingress").revisions()).load()

        assert (raw.certificate, raw.chain, raw.roots) == (pem(ca, ca.root), b"", b"")

    def test_a_key_that_is_not_exportable_is_refused(self, vault, source, ca):
        vault.certificate("ca", ca.key, [ca.certificate], exportable=False)

        with pytest.raises(MaterialRefused, match="has no private key"):
            next(source(TLS, certificate="ca").revisions()).load()

    def test_a_password_is_refused(self, vault, source, ca):
        locked = pkcs12.serialize_key_and_certificates(
            b"", ca.key, ca.certificate, None, BestAvailableEncryption(b"opensesame")
        )
        vault.set("ca", base64.b64encode(locked).decode(), content_type=PKCS12)

        with pytest.raises(MaterialRefused, match="without a password"):
            next(source(TLS, certificate="ca").revisions()).load()

    def test_its_own_dates_are_those_of_the_certificate(self, vault, source, ca):
        vault.certificate("ca", ca.key, [ca.certificate])

        revision = next(source(TLS, certificate="ca").revisions())

        assert revision.expires_at == ca.certificate.not_valid_after_utc


class TestSecrecy:
    def test_private_values_are_concealed_before_anything_is_said_of_them(
        self, vault, connect, source, old
    ):
        store(vault, old)
        concealed = []
        secrets = source(connection=connect(conceal=concealed.append))
        next(secrets.revisions()).load()

        assert old.private_key.decode() in concealed
        assert old.roots.decode() not in concealed

    def test_contents_are_not_shown(self, vault, source, old):
        store(vault, old)
        revision = next(source().revisions())
        revision.load()

        assert "PRIVATE KEY" not in repr(revision)


def chronicle(source) -> Chronicle:
    """What an agent knows that reads from a source."""
    return Chronicle(source, Policy())


@pytest.fixture
def sets(vault, old, new, start):
    """The set that a vault has held for a day, and another one."""
    store(vault, old, created_on=start)
    return old, new


@pytest.mark.parametrize("order", list(itertools.permutations(SECRETS)), ids=lambda order: order[0])
def test_an_operator_who_is_halfway_through_leads_nobody_to_a_mixture(
    azure, vault, source, sets, order
):
    """In any order: neither an agent that runs, nor one that starts in the middle."""
    old, new = sets
    running = chronicle(source())
    running.read(datetime.now(UTC))
    for index, part in enumerate(order, start=1):
        azure.clock.offset = index
        store_part(vault, new, part)
        now = datetime.now(UTC) + timedelta(seconds=index)
        newborn = chronicle(source())
        for each in (running, newborn):
            each.read(now)
        whole = index == len(order)
        for each in (running, newborn):
            good = [entry.bundle.bundle for entry in each.entries if entry.bundle]
            keys = [bundle.private_key.pem for bundle in good]
            assert keys == [new.private_key, old.private_key][not whole :]
            assert (each.entries[0].bundle is not None) == whole
            assert whole or each.entries[0].is_mixture


def test_a_root_that_is_stored_alone_by_hand_is_a_set(vault, source, old, start):
    """Hand staging: what verifies is meant."""
    store(vault, old, created_on=start)
    vault.set("root-cert", old.roots.decode() + pem(make_root()).decode())
    known = chronicle(source())

    known.read(datetime.now(UTC))

    assert [len(each.bundle.bundle.roots) for each in known.entries] == [2, 1]
