"""Certificates of a PKI mount in memory: what is asked for, what is used again, what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from certagent.chronicle import judge
from certagent.config.model import VaultPKISource as Config
from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.material.issuing import KeyType
from certagent.material.kinds import CA
from certagent.material.raw import RawBundle
from certagent.material.request import CertificateRequest
from certagent.material.serving import tls
from certagent.sources.vault.client import VaultRefused
from certagent.sources.vault.pki import Destination, VaultPKISource
from tests.support.material import NOW, make_root
from tests.support.pki import PKIMount

DAY = timedelta(days=1)
DISTRIBUTE = timedelta(hours=25)
CONFIG = {"mount": "pki", "ttl": "72h", "common_name": "Mesh CA", "key_type": "ec-p256"}
LEAF = {
    "mount": "pki",
    "ttl": "72h",
    "key_type": "ec-p256",
    "role": "web",
    "dns_names": ("a.example.com", "*.example.com"),
    "uri_sans": ("spiffe://cluster.local/ns/x/sa/y",),
    "ip_sans": ("10.0.0.1",),
}


@pytest.fixture
def mount():
    """A mount with one issuer, older than any window."""
    made = PKIMount()
    made.add("A", came=NOW - 300 * DAY)
    return made


@pytest.fixture
def make(mount):
    """Make a source on the mount; keywords are those of the configuration, but `held`, `random`."""

    def make_(*, held=lambda: None, random=lambda: 0.0, **options):
        return VaultPKISource(
            mount,
            Config(**{**(LEAF if "role" in options else CONFIG), **options}),
            Destination(CA, held, DISTRIBUTE),
            random=random,
            clock=lambda: mount.now,
        )

    return make_


def newest(source):
    return next(iter(source.revisions()))


def certificate(source):
    return x509.load_pem_x509_certificate(newest(source).load().certificate)


def common_name(name):
    return name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


class TestAnIntermediate:
    def test_its_set_is_one_that_istiod_takes(self, make, mount):
        revision = newest(make())

        judged = judge(revision, NOW)

        assert judged.bundle is not None
        assert {finding.code for finding in judged.findings} <= {"expires-soon"}
        bundle = judged.bundle.bundle
        assert bundle.chain == (bundle.certificate,), "the root is in the roots alone"
        assert bundle.roots[0].fingerprint == mount.entries[0].ca.fingerprint

    def test_what_stands_between_it_and_the_root_is_in_the_chain(self, make, mount):
        above = make_root(subject="CN=Offline root", not_before=NOW - 400 * DAY)
        ca = above.intermediate("x", not_before=NOW - 300 * DAY, pathlen=1)
        mount.default = mount.add("B", ca=ca)

        bundle = judge(newest(make()), NOW).bundle.bundle

        assert [each.subject for each in bundle.chain] == [
            "CN=Mesh CA",
            "L=x,CN=Intermediate CA,O=Istio",
        ]
        assert above.fingerprint in {root.fingerprint for root in bundle.roots}

    def test_vault_is_asked_to_take_nothing_but_the_key_from_the_request(self, make, mount):
        newest(make(path_length=1))

        (path, body) = next((path, body) for method, path, body in mount.asked if method == "POST")
        assert path == "pki/root/sign-intermediate"
        assert "PRIVATE" not in str(mount.asked)
        assert body.pop("csr").startswith("-----BEGIN CERTIFICATE REQUEST-----")
        assert body == {
            "common_name": "Mesh CA",
            "ttl": "259200s",
            "max_path_length": 1,
            "not_before_duration": "300s",
            "use_csr_values": False,
            "exclude_cn_from_sans": True,
            "format": "pem",
        }

    @pytest.mark.parametrize("issuer", ["A", "id-1", "default"])
    def test_an_issuer_that_is_named_is_asked_by_that_name(self, make, mount, issuer):
        mount.default = mount.add("B", came=NOW - 2 * DAY)
        mount.default = "id-1" if issuer == "default" else mount.default

        found = certificate(make(issuer=issuer))

        assert common_name(found.issuer) == "A"
        assert mount.signed == [f"pki/issuer/{issuer}/sign-intermediate"]

    @pytest.mark.parametrize("key_type", ["rsa-2048", "rsa-3072", "ec-p256", "ec-p384"])
    def test_the_key_is_of_the_kind_that_was_asked_for(self, make, key_type):
        key = certificate(make(key_type=key_type)).public_key()

        assert KeyType(key_type.replace("-p", "").replace("-", "")).is_kind_of(key)
        assert not KeyType.RSA4096.is_kind_of(key)


class TestALeaf:
    def test_it_has_the_names_that_were_asked_for_and_carries_its_chain(self, mount):
        ca = make_root(not_before=NOW - 400 * DAY).intermediate(not_before=NOW - 300 * DAY)
        mount.default = mount.add("B", ca=ca)
        source = VaultPKISource(mount, Config(**LEAF), leaf_destination(), clock=lambda: NOW)

        raw = newest(source).load()

        leaf, issuer = x509.load_pem_x509_certificates(raw.certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert common_name(leaf.subject) == "a.example.com"
        assert [str(name.value) for name in names] == [
            "a.example.com",
            "*.example.com",
            "spiffe://cluster.local/ns/x/sa/y",
            "10.0.0.1",
        ]
        assert issuer.subject == leaf.issuer
        assert raw.chain == b""
        assert len(x509.load_pem_x509_certificates(raw.roots)) == 2

    def test_its_names_are_in_the_request_and_in_the_parameters(self, make, mount):
        newest(make(role="web"))

        (path, body) = next((path, body) for method, path, body in mount.asked if method == "POST")
        assert path == "pki/sign/web"
        assert body["alt_names"] == "a.example.com,*.example.com"
        assert body["uri_sans"] == "spiffe://cluster.local/ns/x/sa/y"
        assert body["ip_sans"] == "10.0.0.1"
        assert "use_csr_values" not in body

    def test_a_dns_name_that_is_too_long_for_a_common_name_is_none(self, mount):
        long = f"{'service.' * 8}example.com"
        destination = leaf_destination()
        for names, wanted in (((long,), ""), ((long, "a.example.com"), "a.example.com")):
            config = Config(**{**LEAF, "dns_names": names})
            newest(VaultPKISource(mount, config, destination, clock=lambda: NOW))

            assert mount.asked[-1][2]["common_name"] == wanted
            assert mount.asked[-1][2]["alt_names"] == ",".join(names)

    def test_a_change_of_the_issuer_is_not_staged(self, mount):
        source = VaultPKISource(mount, Config(**LEAF), leaf_destination(), clock=lambda: NOW)
        newest(source)
        mount.default = mount.add("B")

        revisions = list(source.revisions())

        assert len(revisions) == 1
        leaf = x509.load_pem_x509_certificates(revisions[0].load().certificate)[0]
        assert common_name(leaf.issuer) == "B"


def leaf_destination():
    return Destination(tls("server"))


class TestRenewal:
    def test_a_poll_is_one_request_while_nothing_is_to_do(self, make, mount):
        source = make()
        first = newest(source)
        mount.asked.clear()

        for _ in range(5):
            assert newest(source).version == first.version

        assert [(method, path) for method, path, _ in mount.asked] == [("LIST", "pki/issuers")] * 5

    @pytest.mark.parametrize(("drawn", "hours"), [(0.0, 0.6 * 72), (0.999999, 48)])
    def test_it_comes_after_six_tenths_to_two_thirds_of_the_lifetime(
        self, make, mount, drawn, hours
    ):
        source = make(random=lambda: drawn)
        first = newest(source).version
        mount.now = NOW + timedelta(hours=hours, minutes=-1)
        assert newest(source).version == first

        mount.now = NOW + timedelta(hours=hours, minutes=1)
        renewed = newest(source)

        assert renewed.version != first
        assert len(mount.signed) == 2
        assert newest(source).version == renewed.version

    def test_one_that_fails_raises_and_is_asked_for_once_a_pass(self, make, mount):
        source = make()
        first = newest(source)
        mount.now = NOW + 2 * DAY
        mount.fault = {"sign-intermediate": VaultRefused(403, "permission denied")}
        mount.asked.clear()

        for _ in range(3):
            with pytest.raises(AccessDenied):
                newest(source)

        assert len(mount.signed) == 3
        mount.fault = {}
        assert newest(source).version != first.version

    def test_a_new_certificate_is_a_new_version_of_the_same_time(self, make, mount):
        """In force since its issuer is, not since it was made, and to the issuer's end."""
        source = make()
        before = newest(source)
        mount.now = NOW + 2 * DAY

        after = newest(source)

        assert before.created_at == after.created_at == NOW - 300 * DAY - mount.backdating
        assert after.version != before.version
        revision = judge(after, mount.now).revision
        assert revision.start == after.created_at
        assert revision.not_after == mount.entries[0].ca.certificate.not_valid_after_utc
        assert revision.unrenewed.not_after < revision.not_after

    def test_one_that_lives_as_long_as_its_issuer_is_not_asked_for_again(self, make, mount):
        mount.add(
            "B", ca=make_root(not_before=NOW - 300 * DAY, not_after=NOW + timedelta(hours=20))
        )
        mount.default = "id-2"
        mount.max_ttl = timedelta(hours=20)
        source = make(role="web")
        newest(source)
        mount.now = NOW + timedelta(hours=19)

        newest(source)

        assert len(mount.signed) == 1


class TestLimits:
    def test_a_ttl_that_is_cut_is_an_error_at_first(self, make, mount):
        mount.max_ttl = timedelta(hours=24)

        with pytest.raises(AccessDenied, match="Vault gave 1 day, 0:00:30 where a ttl of 72h"):
            newest(make())

    def test_a_ttl_that_is_cut_later_is_told_once_and_used(self, make, mount, caplog):
        source = make()
        newest(source)
        mount.max_ttl = timedelta(hours=24)
        for days in (2, 3, 4):
            mount.now = NOW + days * DAY
            newest(source)

        assert len(mount.signed) == 4
        assert caplog.text.count("where a ttl of 72h was asked for") == 1

    def test_an_issuer_that_expires_sooner_is_not_asked_for_a_ca(self, make, mount):
        mount.now = mount.entries[0].ca.certificate.not_valid_after_utc - DAY

        with pytest.raises(AccessDenied, match="sooner than a CA with a ttl of 72h"):
            newest(make())
        assert not mount.signed

    def test_a_renewal_by_an_issuer_that_expires_sooner_lasts_until_its_end(
        self, make, mount, caplog
    ):
        source = make()
        ends = mount.entries[0].ca.certificate.not_valid_after_utc
        mount.now = ends - 4 * DAY
        newest(source)
        for hours in (0, 12, 40):
            mount.now = ends - 2 * DAY + timedelta(hours=hours)
            found = certificate(source)

        assert found.not_valid_after_utc == ends
        assert len(mount.signed) == 2
        assert caplog.text.count("sooner than a CA with a ttl of 72h") == 1

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"common_name": "Other"}, "common name is"),
            ({"ttl": "400000s"}, "longer than was asked for"),
            ({"max_path_length": 2}, "path length is 2, not 0"),
            ({"max_path_length": None}, "path length is None, not 0"),
        ],
    )
    def test_another_ca_than_was_asked_for_is_refused(self, make, mount, change, told):
        post = mount.post
        mount.post = lambda url, json: post(url, json | change)

        with pytest.raises(MaterialRefused, match=told) as refused:
            newest(make())
        assert refused.value.findings[0].code == "issued-otherwise"

    def test_a_leaf_in_the_place_of_a_ca_is_refused(self, make, mount):
        post = mount.post
        mount.post = lambda _, json: post("/v1/pki/sign/x", json)

        with pytest.raises(MaterialRefused, match="not a CA's"):
            newest(make())

    def test_a_leaf_with_other_names_is_refused(self, make, mount):
        sign = mount._signed
        other = CertificateRequest(KeyType.EC256, "a.example.com", DAY, ("b.example.com",))

        def with_other_names(ca, request, asked, **kind):
            names = SimpleNamespace(
                public_key=request.public_key,
                extensions=x509.load_pem_x509_csr(
                    other.csr(KeyType.EC256.generate()).encode()
                ).extensions,
            )
            return sign(ca, names, asked, **kind)

        mount._signed = with_other_names

        with pytest.raises(MaterialRefused, match=r"names are b.example.com, not \*.example.com"):
            newest(make(role="web"))

    def test_a_certificate_for_another_key_is_refused(self, make, mount):
        answers = []
        mount.change = lambda answer: answers.append(answer) or answers[0]
        newest(make())

        with pytest.raises(SourceUnavailable, match="for another key than ours"):
            newest(make())

    def test_a_signature_of_another_issuer_is_not_used(self, make, mount):
        """A role that names its own issuer; or the default that is changed at this moment."""
        mount.add("B", came=NOW - 2 * DAY)
        post = mount.post
        mount.post = lambda _, json: post("/v1/pki/issuer/B/sign/web", json)

        with pytest.raises(SourceUnavailable, match=r"signed with 'CN=B'") as refused:
            newest(make(role="web"))
        assert "issuer_ref" in refused.value.hint
        mount.post = lambda _, json: post("/v1/pki/issuer/B/sign-intermediate", json)
        with pytest.raises(SourceUnavailable, match="not with the issuer A") as refused:
            newest(make())
        assert "changed just now" in refused.value.hint


class TestWhatIsPublishedAlready:
    @pytest.fixture
    def held(self, make):
        """What an earlier run left."""
        return CA.decode(newest(make()).load())

    def test_it_is_used_again_without_a_request_to_sign(self, make, mount, held):
        mount.asked.clear()

        revision = newest(make(held=lambda: held))

        assert CA.decode(revision.load()) == held
        assert not mount.signed

    def test_it_is_asked_for_once(self, make, held):
        asked = []
        source = make(held=lambda: asked.append(1) or held)

        newest(source)
        newest(source)

        assert asked == [1]

    @pytest.mark.parametrize(
        "options",
        [{"common_name": "Other CA"}, {"key_type": "ec-p384"}, {"ttl": "2h"}],
    )
    def test_it_is_not_used_where_the_configuration_asks_for_another(
        self, make, mount, held, options, caplog
    ):
        caplog.set_level(logging.INFO)
        mount.asked.clear()

        newest(make(held=lambda: held, **options))

        assert len(mount.signed) == 1
        assert "what is published is not used again" in caplog.text

    def test_it_is_not_used_past_its_time_of_renewal(self, make, mount, held):
        mount.asked.clear()
        mount.now = NOW + 2 * DAY

        newest(make(held=lambda: held))

        assert len(mount.signed) == 1

    def test_it_is_not_used_where_its_issuer_has_left_the_mount(self, make, mount, held):
        mount.default = mount.add("B", came=NOW - 100 * DAY)
        mount.remove("id-1")

        assert common_name(certificate(make(held=lambda: held)).issuer) == "B"

    def test_a_root_that_goes_with_its_issuer_and_the_agent_that_knew_it_is_told(
        self, make, mount, held, caplog
    ):
        mount.default = mount.add("B", came=NOW - DAY)
        mount.remove("id-1")

        newest(make(held=lambda: held))

        assert "the published root 'CN=A'" in caplog.text
        assert "`vault write pki/issuers/import/cert" in caplog.text

    def test_damaged_files_are_none(self, make, mount):
        def damaged():
            return CA.decode(RawBundle(b"", b"", b"", b""))

        newest(make(held=damaged))

        assert len(mount.signed) == 1


class TestIssuers:
    def test_all_that_have_a_key_count_and_those_that_have_expired_do_not(self, make, mount):
        mount.add("B")
        mount.add("C", has_key=False)
        mount.add("D", ca=make_root(subject="CN=D", not_after=NOW - DAY))

        roots = x509.load_pem_x509_certificates(newest(make()).load().roots)

        assert {common_name(root.subject) for root in roots} == {"A", "B"}

    def test_those_that_may_issue_leafs_alone_do_not_count_for_a_ca(self, make, mount):
        """Neither is their root trusted, nor is one asked to sign until another is known."""
        mount.entries.clear()
        mount.add("Leafs", ca=make_root(subject="CN=Leafs", pathlen=0))
        mount.default = mount.add("B")

        (revision,) = make().revisions()

        (root,) = x509.load_pem_x509_certificates(revision.load().roots)
        assert common_name(root.subject) == "B"
        assert mount.signed == ["pki/root/sign-intermediate"]

    def test_one_whose_chain_has_no_root_cannot_sign_and_says_what_to_import(self, make, mount):
        ca = make_root(subject="CN=Offline root").intermediate()
        mount.default = mount.add("B", ca=ca, root_is_known=False)

        with pytest.raises(SecretNotFound, match="it ends below 'CN=Offline root'") as missing:
            newest(make())
        assert "vault write pki/issuers/import/cert" in missing.value.hint

    def test_another_without_a_root_is_told_once_and_left_out(self, make, mount, caplog):
        mount.add("B", ca=make_root(subject="CN=R").intermediate(), root_is_known=False)
        source = make()

        for _ in range(3):
            newest(source)

        assert caplog.text.count("has no root") == 1
        assert len(x509.load_pem_x509_certificates(newest(source).load().roots)) == 1

    def test_a_chain_that_is_completed_is_read_again(self, make, mount):
        ca = make_root(subject="CN=R", not_before=NOW - 300 * DAY).intermediate(
            not_before=NOW - 300 * DAY, pathlen=1
        )
        id_ = mount.add("B", ca=ca, root_is_known=False)
        source = make()
        newest(source)
        mount._entry(id_).root_is_known = True
        mount.add("R", ca=ca.root, has_key=False)

        assert len(x509.load_pem_x509_certificates(newest(source).load().roots)) == 2

    def test_an_unknown_one_is_told_with_those_that_there_are(self, make, mount):
        mount.add("B")

        with pytest.raises(SecretNotFound, match="no 'C' issuer; there are: A, B"):
            newest(make(issuer="C"))

    def test_a_mount_without_a_default_says_how_to_make_one(self, make, mount):
        mount.default = "none"

        with pytest.raises(SecretNotFound, match="no 'default' issuer; there are: A") as missing:
            newest(make())
        assert "config/issuers default=" in missing.value.hint


class TestStages:
    def test_an_issuer_that_came_just_now_is_told_with_the_one_before_it(self, make, mount):
        mount.default = mount.add("B")

        new, old = make().revisions()

        assert (new.created_at, new.is_first) == (NOW - mount.backdating, False)
        assert len(x509.load_pem_x509_certificates(new.load().roots)) == 2
        assert len(x509.load_pem_x509_certificates(old.load().roots)) == 1
        assert mount.signed == ["pki/root/sign-intermediate", "pki/issuer/id-1/sign-intermediate"]

    def test_one_that_has_been_distributed_is_told_alone(self, make, mount):
        mount.default = mount.add("B")
        mount.now = NOW + DISTRIBUTE

        (revision,) = make().revisions()

        assert revision.is_first, "what was before it does not matter"
        assert mount.signed == ["pki/root/sign-intermediate"]

    def test_one_that_is_not_the_default_is_distributed_and_does_not_sign(self, make, mount):
        mount.add("B")

        new, old = make().revisions()

        assert len(x509.load_pem_x509_certificates(new.load().roots)) == 2
        assert new.load().certificate == old.load().certificate
        assert mount.signed == ["pki/root/sign-intermediate"]

    def test_an_older_issuer_that_refuses_signs_on_with_what_it_signed_before(self, make, mount):
        source = make()
        newest(source)
        mount.default = mount.add("B")
        list(source.revisions())
        mount.now = NOW + timedelta(hours=24.9)
        mount.fault = {"issuer/id-1/": VaultRefused(403, "permission denied")}
        mount.asked.clear()
        source._issued["id-1"] = due(source._issued["id-1"], mount.now)

        revisions = list(source.revisions())

        assert len(revisions) == 2
        assert mount.signed == ["pki/issuer/id-1/sign-intermediate"]

    def test_an_older_issuer_that_refuses_a_newborn_says_why_it_was_asked(self, make, mount):
        mount.default = mount.add("B")
        mount.fault = {"id-1/sign-": VaultRefused(403, "permission denied")}

        with pytest.raises(AccessDenied, match=r"older issuer A .* root of B ") as refused:
            list(make().revisions())
        assert '"update" on "pki/issuer/id-1/sign-intermediate"' in refused.value.hint

    def test_an_older_issuer_signs_until_its_own_end_at_most(self, make, mount):
        mount.entries[0].ca = make_root(
            subject="CN=A", not_before=NOW - 300 * DAY, not_after=NOW + timedelta(hours=30)
        )
        mount.default = mount.add("B")

        list(make().revisions())

        ttls = [body["ttl"] for method, _, body in mount.asked if method == "POST"]
        assert ttls == ["259200s", "108000s"]

    def test_without_staging_the_newest_is_told_alone(self, mount):
        mount.default = mount.add("B")
        source = VaultPKISource(mount, Config(**CONFIG), Destination(CA), clock=lambda: NOW)

        assert len(list(source.revisions())) == 1


def due(issued, now):
    return replace(issued, renew_at=now)


class TestAnswers:
    @pytest.mark.parametrize(
        ("path", "fault", "error", "told"),
        [
            ("issuers", VaultRefused(403, "denied"), AccessDenied, '"list" on "pki/issuers"'),
            ("/json", VaultRefused(403, "denied"), AccessDenied, '"read" on "pki/issuer/+/json"'),
            ("issuers", VaultRefused(404, "no handler for route"), SecretNotFound, "secrets list"),
            ("issuers", VaultRefused(405, "unsupported"), SourceUnavailable, "tried again"),
            (
                "sign-",
                VaultRefused(403, "denied"),
                AccessDenied,
                '"update" on "pki/root/sign-intermediate"',
            ),
            ("sign-", VaultRefused(404, "no handler"), SecretNotFound, "secrets list"),
            ("sign-", VaultRefused(400, "unknown role: web"), SecretNotFound, "roles/"),
            ("sign-", VaultRefused(400, "something else"), AccessDenied, "Its own log tells more"),
            (
                "sign-",
                SourceUnavailable("500: requested usage issuing-certificates but"),
                AccessDenied,
                "may not issue certificates",
            ),
            ("sign-", SourceUnavailable("503: sealed"), SourceUnavailable, "503"),
        ],
    )
    def test_a_refusal_says_what_to_do(self, make, mount, path, fault, error, told):
        mount.fault = {path: fault}

        with pytest.raises(error) as raised:
            newest(make())
        assert told in str(raised.value)
        assert type(raised.value) is error
        assert len(str(raised.value).splitlines()) <= 3

    def test_a_mount_of_another_engine_is_told_from_an_empty_one(self, make, mount):
        mount.entries = []
        with pytest.raises(SecretNotFound, match="'pki' has no issuer"):
            newest(make())

        mount.get = lambda _: {"data": {"type": "kv"}}
        with pytest.raises(SecretNotFound, match="of type 'kv', not pki"):
            newest(make())

        mount.fault = {"sys/internal": VaultRefused(403, "denied")}
        del mount.get
        with pytest.raises(SecretNotFound, match="'pki' has no issuer"):
            newest(make())

    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            ("request", {"data": {"keys": ["a"]}}),
            ("request", {"data": {"key_info": {"a": 1}}}),
            ("request", {}),
            ("get", {"data": {}}),
            ("get", {"data": {"certificate": "no PEM"}}),
            (
                "get",
                {
                    "data": {
                        "certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n"
                        "-----END CERTIFICATE-----\n"
                    }
                },
            ),
        ],
    )
    def test_an_answer_that_is_not_an_engines_is_told_so(self, make, mount, method, answer):
        setattr(mount, method, lambda *_: answer)

        with pytest.raises(SourceUnavailable, match="not a PKI engine's"):
            newest(make())


def test_a_source_is_named_as_operators_write_it(make):
    assert make().name == "vault-pki:pki"
    assert make(role="web", mount="/team/pki/").name == "vault-pki:team/pki/web"


def test_nothing_shows_a_key(make):
    source = make()
    revision = newest(source)

    key = revision.load().private_key.decode().splitlines()[1]
    assert key not in f"{source._issued!r} {revision!r} {revision.load()!r}"
