"""A push to Key Vault: what is written in which order, what readers see, and what is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from certagent.chronicle import Chronicle
from certagent.config.model import AzureKeyVaultSource, ClientSecret, SecretNamesConfig
from certagent.errors import (
    AccessDenied,
    ConfigurationError,
    MaterialRefused,
    OutputError,
    SourceUnavailable,
)
from certagent.material.history import Policy
from certagent.material.kinds import CA
from certagent.material.rotation import plan
from certagent.material.serving import tls
from certagent.sources.azure import KeyVaultSource
from certagent.sources.azure.history import TAG
from certagent.sources.azure.shelf import MAX_VERSIONS
from certagent.sources.azure.writing import LONGEST_WAIT, KeyVaultStore
from tests.support.azure.akv import throttled
from tests.support.azure.faults import afterwards, answers, closes, meanwhile
from tests.support.azure.operator import SECRET, SECRETS, store, store_part
from tests.support.azure.vault import PEM
from tests.support.material import fields, make_leaf, make_root, new_key

TLS = tls()
ROOT = make_root()
KEY = new_key()
OLD_CA = ROOT.intermediate(key=KEY)
OLD = OLD_CA.raw()
NEW = ROOT.intermediate().raw()
RENEWED = ROOT.intermediate(key=KEY).raw()
ORDER = ["ca-key", "cert-chain", "root-cert", "ca-cert"]


def canonical(raw):
    return CA.decode(raw).canonical()


@pytest.fixture
def day_ago(azure):
    return datetime.fromtimestamp(int(azure.clock.now()), UTC) - timedelta(days=1)


@pytest.fixture
def pauses():
    """The seconds that a push has waited."""
    return []


@pytest.fixture
def writer(vault, app, connect, pauses):
    """Make a store, of the four secrets unless told, whose login may write."""
    vault.grant(app, "set")

    def writer_(kind=CA, **form):
        return KeyVaultStore(connect(), AzureKeyVaultSource(**form), kind, pause=pauses.append)

    return writer_


def push(target, raw):
    before = target.read()
    return target.write(target.fields(raw, before), before)


def tags(vault, secrets=ORDER):
    """The tags of the newest versions."""
    return {(vault.version(name).tags or {}).get(TAG, "") for name in secrets}


@pytest.fixture
def puts(azure, vault):
    """The secrets that were asked to be written, in order."""

    def puts_():
        asked = azure.requests(vault)
        return [path.split("/")[2] for method, path, _ in asked if method == "PUT"]

    return puts_


class TestWriting:
    def test_the_key_comes_first_and_the_certificate_last(self, writer, puts):
        target = writer()
        target.read()  # the login's challenge is over

        push(target, NEW)

        assert puts() == ORDER

    def test_all_versions_have_one_tag_which_is_the_versions_name(self, vault, writer):
        version = push(writer(), NEW)

        assert tags(vault) == {version}
        assert writer().read().version == version

    def test_each_part_is_a_pem_file_for_key_vault(self, vault, writer):
        push(writer(), NEW)

        assert {vault.version(name).content_type for name in SECRETS.values()} == {PEM}

    def test_what_was_written_is_read_back(self, writer):
        target = writer()

        assert target.load(push(target, NEW)) == canonical(NEW)

    def test_each_push_has_a_name_of_its_own(self, writer):
        assert writer().read().following != writer().read().following

    def test_a_set_is_followed_by_another(self, writer):
        target = writer()
        first = push(target, OLD)
        second = push(target, NEW)

        assert [each.version for each in target.revisions()] == [second, first]

    def test_all_versions_are_kept(self, writer):
        assert writer().retention().max_versions is None
        assert writer().keeps_history

    def test_a_version_that_is_not_there_is_told(self, writer):
        target = writer()
        push(target, NEW)

        with pytest.raises(OutputError, match="does not show version other"):
            target.load("other")

    def test_it_waits_until_what_was_written_is_listed(self, azure, vault, writer, pauses):
        target = writer()
        push(target, OLD)
        stale = _listing(vault, "ca-key")
        before = target.read()
        wanted = target.fields(canonical(NEW), before)

        def lag():
            azure.faults.inject(answers(200, stale), path="ca-key/versions", times=2)

        azure.faults.inject(meanwhile(lag), method="PUT", path="ca-cert")

        target.write(wanted, before)

        assert pauses == [1.0]

    def test_what_is_never_listed_is_told(self, azure, vault, writer, pauses):
        target = writer()
        push(target, OLD)
        before = target.read()
        stale = _listing(vault, "ca-key")
        wanted = target.fields(canonical(NEW), before)
        azure.faults.inject(answers(200, stale), path="ca-key/versions", times=None)

        with pytest.raises(SourceUnavailable, match="does not list all that was written"):
            target.write(wanted, before)
        assert sum(pauses) >= 20


def _listing(vault, name):
    """What Key Vault lists of a secret now."""
    versions = vault.live[name]
    items = [
        {
            "id": f"{vault.url}/secrets/{name}/{each.id}",
            "attributes": each.attributes,
            "tags": each.tags,
        }
        for each in versions.values()
    ]
    return {"value": items, "nextLink": None}


class TestOtherForms:
    def test_one_secret_is_one_write_and_other_fields_stay(self, vault, writer):
        vault.set("all", json.dumps({**fields(OLD), "owner": "mesh team"}))
        target = writer(secret="all")
        before = target.read()
        wanted = target.fields(canonical(NEW), before)

        version = target.write(wanted, before)

        assert (before.fields["owner"], wanted["owner"]) == ("mesh team", "mesh team")
        assert json.loads(vault.version("all").value) == wanted
        assert vault.version("all").content_type == "application/json"
        assert target.load(version) == canonical(NEW)

    @pytest.mark.parametrize("there", ["-----BEGIN", "[]"])
    def test_what_was_no_json_object_is_replaced_whole(self, vault, writer, there):
        vault.set("all", there)
        target = writer(secret="all")

        assert target.read().fields == {}
        push(target, canonical(NEW))
        assert json.loads(vault.version("all").value) == fields(NEW)

    def test_a_gateways_certificate_carries_its_chain(self, vault, writer):
        leaf = make_leaf()
        raw = TLS.decode(leaf.raw()).canonical()
        names = SecretNamesConfig(private_key="ingress-key", certificate="ingress-cert")
        target = writer(TLS, secrets=names)

        version = push(target, raw)

        assert vault.version("ingress-cert").value == (raw.certificate + raw.chain).decode()
        assert TLS.decode(target.load(version)).canonical() == raw

    def test_revocation_lists_have_a_secret_where_it_is_named(self, vault, writer):
        raw = canonical(OLD_CA.raw(crls=OLD_CA.crl() + ROOT.crl()))
        target = writer(secrets=SecretNamesConfig(crls="ca-crl"))

        assert target.load(push(target, raw)) == raw
        assert tags(vault, ["ca-crl", "ca-key"]) == {target.read().version}


class TestWhatItCannotHold:
    def test_a_part_without_a_secret_is_told_before_anything_is_written(self, writer, puts):
        target = writer()
        raw = canonical(OLD_CA.raw(crls=OLD_CA.crl() + ROOT.crl()))

        with pytest.raises(ConfigurationError, match="cannot hold all parts") as told:
            target.fields(raw, target.read())

        assert "crls" in told.value.hint
        assert puts() == []

    def test_two_parts_in_one_secret_are_told(self, writer):
        target = writer(secrets=SecretNamesConfig(roots="ca-cert"))

        with pytest.raises(ConfigurationError, match="cannot hold all parts"):
            target.fields(canonical(NEW), target.read())

    def test_a_part_that_is_there_cannot_be_taken_away(self, writer):
        target = writer(secrets=SecretNamesConfig(crls="ca-crl"))
        push(target, canonical(OLD_CA.raw(crls=OLD_CA.crl() + ROOT.crl())))

        with pytest.raises(MaterialRefused, match="'ca-crl', and this set has nothing for it"):
            target.fields(canonical(NEW), target.read())

    def test_a_part_over_key_vaults_limit_is_told_before_anything_is_written(self, writer, puts):
        many = b"".join(make_root(subject=f"CN={n}").pem for n in range(60))
        target = writer()

        with pytest.raises(MaterialRefused, match="'root-cert' would have"):
            target.fields(canonical(replace(NEW, roots=NEW.roots + many)), target.read())
        assert puts() == []

    def test_a_secret_of_more_versions_than_are_read_is_left_alone(
        self, vault, writer, day_ago, monkeypatch
    ):
        monkeypatch.setattr("certagent.sources.azure.writing.MAX_VERSIONS", 2)
        store(vault, OLD, created_on=day_ago)
        store_part(vault, NEW, "roots")

        with pytest.raises(OutputError, match="'root-cert' of azure:mesh has 2 versions"):
            writer().read()
        assert MAX_VERSIONS > 2

    def test_a_disabled_version_has_nothing_to_show(self, vault, writer):
        store(vault, OLD)
        vault.disable("ca-key")

        assert set(writer().read().fields) == {"ca-cert", "cert-chain", "root-cert"}


class Reader:
    """An agent's history, read again and again, and what it would publish."""

    def __init__(self, source):
        self.chronicle = Chronicle(source, Policy(), kind=CA)

    def published(self):
        """The set that its plan signs with; None where there is nothing to publish."""
        now = datetime.now(UTC)
        self.chronicle.read(now)
        signer = plan(self.chronicle.revisions, now, Policy()).signer
        return signer.bundle.bundle.canonical() if signer else None


@pytest.fixture
def readers(vault, tenant, config, connect):
    """Make readers, whose logins may list, or may not."""
    logins = {}
    for name, permissions in (("list", ["get", "list"]), ("get", ["get"])):
        app = tenant.application(secret=SECRET)
        vault.grant(app, *permissions)
        file = config.credential.secret_file
        login = ClientSecret(tenant_id=tenant.id, client_id=app.client_id, secret_file=file)
        logins[name] = msgspec.structs.replace(config, credential=login)

    def readers_():
        return {
            name: Reader(KeyVaultSource(connect(given), AzureKeyVaultSource()))
            for name, given in logins.items()
        }

    return readers_


class TestReadersInTheMiddle:
    """Whatever is written, in force is the old set or the new one, and no mixture of them."""

    @pytest.fixture(params=[{}, {TAG: "X"}], ids=["by hand", "pushed"])
    def stored(self, request, vault, day_ago):
        store(vault, OLD, created_on=day_ago, tags=request.param)
        return vault

    @pytest.mark.usefixtures("stored")
    @pytest.mark.parametrize("new", [NEW, RENEWED], ids=["new key", "same key"])
    def test_at_each_of_four_moments_and_at_the_end(self, azure, writer, readers, new):
        running = readers()
        assert {each.published() == canonical(OLD) for each in running.values()} == {True}
        seen = []

        def look():
            newborn = readers()
            seen.append(
                (
                    *(running[name].published() for name in running),
                    *(newborn[name].published() for name in newborn),
                )
            )

        target = writer()
        before = target.read()
        wanted = target.fields(canonical(new), before)
        azure.faults.inject(meanwhile(look), method="PUT", times=4)

        target.write(wanted, before)

        old = canonical(OLD)
        # Who may not list and was not there before waits for the end of the push.
        assert seen == [(old, old, old, old), *[(old, old, old, None)] * 3]
        look()
        assert seen[-1] == (canonical(new),) * 4


class TestOtherPushers:
    def test_one_that_came_before_the_first_write_is_told_and_nothing_is_stored(
        self, vault, writer
    ):
        first, second = writer(), writer()
        before = first.read()
        theirs = push(second, NEW)

        with pytest.raises(OutputError, match=f"its newest version is {theirs} now"):
            first.write(first.fields(canonical(OLD), before), before)
        assert tags(vault) == {theirs}

    @pytest.mark.parametrize("moment", ORDER)
    def test_one_that_comes_in_between_is_told_to_one_of_them_at_least(
        self, azure, vault, writer, readers, moment
    ):
        first, second = writer(), writer()
        before = first.read()
        wanted = first.fields(canonical(OLD), before)
        push_theirs = []
        azure.faults.inject(
            meanwhile(lambda: push_theirs.append(push(second, NEW))), method="PUT", path=moment
        )

        with pytest.raises(
            OutputError, match="Somebody else stored 'ca-cert' and 'ca-key'"
        ) as told:
            first.write(wanted, before)

        assert len(str(told.value).splitlines()) <= 3
        assert push_theirs
        for reader in readers().values():
            assert reader.published() in {canonical(OLD), canonical(NEW), None}
        again = push(first, OLD)
        assert tags(vault) == {again}
        assert {each.published() == canonical(OLD) for each in readers().values()} == {True}

    def test_a_part_that_is_stored_by_hand_is_told_by_its_name(self, azure, vault, writer):
        target = writer()
        push(target, OLD)
        before = target.read()
        wanted = target.fields(canonical(NEW), before)
        azure.faults.inject(
            meanwhile(lambda: store_part(vault, OLD, "roots")), method="PUT", path="ca-cert"
        )

        with pytest.raises(OutputError, match="Somebody else stored 'root-cert'"):
            target.write(wanted, before)


class TestFaults:
    @pytest.fixture
    def begun(self, writer):
        """A store with a set, and a push of the next one that is about to write."""
        target = writer()
        push(target, OLD)
        before = target.read()
        return target, target.fields(canonical(NEW), before), before

    def test_a_refusal_in_the_middle_tells_what_was_written(self, azure, vault, app, begun):
        target, wanted, before = begun
        azure.faults.inject(
            meanwhile(lambda: vault.revoke(app, "set")), method="PUT", path="root-cert"
        )

        with pytest.raises(AccessDenied, match="'ca-key' and 'cert-chain' were written") as told:
            target.write(wanted, before)

        assert "Key Vault Secrets Officer" in told.value.hint
        assert "agents keep the last good set" in told.value.hint
        assert len(str(told.value).splitlines()) <= 3
        vault.grant(app, "set")
        assert target.load(push(target, NEW)) == canonical(NEW)

    def test_a_refusal_of_the_first_write_says_nothing_of_others(self, vault, app, begun):
        target, wanted, before = begun
        vault.revoke(app, "set")

        with pytest.raises(AccessDenied, match="refused to write") as told:
            target.write(wanted, before)

        assert "written before" not in told.value.message

    def test_who_may_not_list_is_told(self, vault, app, writer):
        vault.revoke(app, "list")

        with pytest.raises(AccessDenied, match="list the versions") as told:
            writer().read()
        assert "Get, List and Set" in told.value.hint

    @pytest.mark.parametrize(("asked", "waited"), [("8", 8.0), ("3600", LONGEST_WAIT), (None, 1.0)])
    def test_throttling_is_waited_for_as_long_as_it_asks_with_a_cap(
        self, azure, begun, pauses, asked, waited
    ):
        target, wanted, before = begun
        header = {"Retry_After": asked} if asked else {}
        azure.faults.inject(answers(429, throttled(), **header), method="PUT", path="cert-chain")

        target.write(wanted, before)

        assert pauses == [waited]

    def test_an_outage_ends_the_push_and_the_next_one_is_whole(self, azure, readers, begun, pauses):
        target, wanted, before = begun
        fault = azure.faults.inject(closes, method="PUT", path="root-cert", times=None)

        with pytest.raises(SourceUnavailable, match="'ca-key' and 'cert-chain' were written"):
            target.write(wanted, before)

        assert pauses == [1.0, 2.0, 4.0]
        assert readers()["list"].published() == canonical(OLD)
        fault.times = 0
        push(target, NEW)
        assert {each.published() == canonical(NEW) for each in readers().values()} == {True}

    def test_a_write_whose_answer_was_lost_is_written_again_with_the_same_tag(
        self, azure, vault, readers, begun
    ):
        target, wanted, before = begun
        azure.faults.inject(afterwards(closes), method="PUT", path="cert-chain")

        version = target.write(wanted, before)

        assert len(vault.live["cert-chain"]) == 3
        assert tags(vault) == {version}
        assert target.load(version) == canonical(NEW)
        assert {each.published() == canonical(NEW) for each in readers().values()} == {True}

    def test_a_deleted_secret_is_told_with_the_command_that_brings_it_back(self, vault, writer):
        store(vault, OLD)
        vault.delete("cert-chain")
        target = writer()

        with pytest.raises(OutputError, match="deleted but recoverable") as told:
            push(target, NEW)

        assert "az keyvault secret recover --vault-name mesh --name cert-chain" in told.value.hint
        vault.recover("cert-chain")
        assert target.load(push(target, NEW)) == canonical(NEW)


def test_what_is_stored_is_not_shown(writer):
    target = writer()
    push(target, OLD)

    assert "PRIVATE KEY" not in repr(target.read())


def test_what_is_written_is_concealed_first(vault, app, connect):
    vault.grant(app, "set")
    concealed = []
    target = KeyVaultStore(connect(conceal=concealed.append), AzureKeyVaultSource(secret="all"))

    push(target, canonical(NEW))

    assert vault.version("all").value in concealed
