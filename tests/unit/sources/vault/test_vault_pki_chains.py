"""Issuers whose chain has several ways up: cross-signed ones, and roots renewed with their key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from certagent.assignment import Assignment
from certagent.config.model import VaultPKISource as Config
from certagent.keeper import Keeper
from certagent.material.kinds import CA
from certagent.sources.vault.pki import Destination, VaultPKISource
from tests.support.material import NOW, make_root
from tests.support.pki import PKIMount
from tests.support.pods import common_name
from tests.support.stores import MemorySink, Silence

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
CONFIG = Config(mount="pki", ttl="72h", common_name="Mesh CA", key_type="ec-p256")


def newborn(mount):
    """The signers, newest first, and their roots, as one knows them who sees the mount anew."""
    source = VaultPKISource(
        mount, CONFIG, Destination(CA, distribute=25 * HOUR), clock=lambda: mount.now
    )
    return [
        (
            common_name(x509.load_pem_x509_certificate(raw.certificate).issuer),
            sorted(common_name(each.subject) for each in certificates(raw.roots)),
            [common_name(each.subject) for each in certificates(raw.chain)],
        )
        for raw in (revision.load() for revision in source.revisions())
    ]


def certificates(pem):
    return x509.load_pem_x509_certificates(pem)


@pytest.fixture
def mount():
    return PKIMount()


def root(name, **knobs):
    return make_root(subject=f"CN={name}", **{"not_before": NOW - 300 * DAY, **knobs})


class TestCrossSigned:
    def test_an_old_issuer_that_a_new_one_cross_signs_is_no_younger_for_it(self, mount):
        """Else a pod that is born now would sign under B, whose root came an hour ago."""
        old, new = root("A"), root("B", not_before=NOW - HOUR)
        cross = new.middle(subject="CN=A", key=old.key, not_before=NOW - HOUR / 2, pathlen=None)
        mount.add("A", ca=old, also=(cross, new))
        mount.add("B", ca=new)

        assert [each[:2] for each in newborn(mount)] == [("A", ["A", "B"]), ("A", ["A"])]

    def test_a_new_issuer_that_the_old_one_cross_signs_sends_that_along(self, mount):
        old, new = root("A"), root("B", not_before=NOW - HOUR)
        cross = old.middle(subject="CN=B", key=new.key, not_before=NOW - HOUR / 2, pathlen=None)
        mount.add("A", ca=old)
        mount.default = mount.add("B", ca=new, also=(cross, old))

        assert newborn(mount) == [
            ("B", ["A", "B"], ["Mesh CA", "B"]),
            ("A", ["A"], ["Mesh CA"]),
        ]

    def test_two_that_sign_each_other_send_what_leads_to_a_root_alone(self, mount):
        old, new = root("A"), root("B", not_before=NOW - HOUR)
        by_old = old.middle(subject="CN=B", key=new.key, not_before=NOW - HOUR, pathlen=None)
        by_new = new.middle(subject="CN=A", key=old.key, not_before=NOW - HOUR, pathlen=None)
        mount.add("A", ca=old, also=(by_new, new, by_old))
        mount.default = mount.add("B", ca=new, also=(by_old, old, by_new))

        assert [chain for *_, chain in newborn(mount)] == [["Mesh CA", "B"], ["Mesh CA", "A"]]


class TestARootThatWasRenewedWithItsKey:
    @pytest.fixture
    def add(self, mount):
        """Add an intermediate below a root that expires in ten days, and was renewed just now."""

        def add_(**knobs):
            expiring = root("R", not_after=NOW + 10 * DAY)
            renewed = root("R", key=expiring.key, not_before=NOW - HOUR)
            ca = expiring.middle(
                **{"subject": "CN=I", "not_before": NOW - 100 * DAY, "pathlen": None, **knobs}
            )
            mount.default = mount.add("I", ca=ca, also=(renewed,))

        return add_

    def test_an_issuer_below_it_is_no_younger_for_it(self, mount, add):
        """Else a pod that is born now would sign under an issuer that was relieved long ago."""
        mount.add("X", ca=root("X"))
        add()

        assert [signer for signer, *_ in newborn(mount)] == ["I", "I"]

    def test_an_issuer_below_it_lasts_as_long_as_the_longer_way(self, mount, add):
        add(not_after=NOW + 200 * DAY)
        mount.now = NOW + 9 * DAY

        assert [signer for signer, *_ in newborn(mount)] == ["I"]

    def test_it_has_gone_when_it_expires_or_envoy_would_refuse_all_below_the_renewed_one(
        self, mount, add
    ):
        add(not_after=NOW + 200 * DAY)
        sink = MemorySink()
        source = VaultPKISource(
            mount, CONFIG, Destination(CA, distribute=25 * HOUR), clock=lambda: mount.now
        )
        keeper = Keeper(Assignment("ca", source, sink), Silence())
        counts = []
        for hours in range(0, 12 * 24, 6):
            mount.now = NOW + hours * HOUR
            keeper.refresh(mount.now)
            counts.append(len(certificates(sink.snapshot.files["root-cert.pem"])))

        assert counts == sorted(counts, reverse=True)
        assert counts[0] == 2
        assert counts[(10 * 24 - 12) // 6] == 1

    def test_what_is_issued_below_it_is_renewed(self, mount, add):
        add(not_after=NOW + 200 * DAY)
        mount.now = NOW + 9 * DAY
        source = VaultPKISource(
            mount, CONFIG, Destination(CA, distribute=25 * HOUR), clock=lambda: mount.now
        )
        list(source.revisions())
        mount.now += 2 * DAY

        list(source.revisions())

        assert len(mount.signed) == 2
