"""A real Envoy as the judge of certificates: what it loads is accepted, what it refuses is not."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certagent.errors import MaterialRefused
from certagent.material.serving import tls
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY
from tests.support.envoy import Client, Envoy
from tests.support.gateways import Gateways
from tests.support.material import NOW, make_leaf, make_root, private_key_pem, tls_files
from tests.support.process import until

ROOT = make_root(subject="CN=Servers")
ISSUER = ROOT.intermediate("gateways", dns=())
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)
MUST_STAPLE = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)

LOADED = {
    "P-256": {},
    "P-384": {"key": ec.generate_private_key(ec.SECP384R1())},
    "P-521": {"key": ec.generate_private_key(ec.SECP521R1())},
    "RSA 2048": {"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)},
    "Ed25519": {"key": ed25519.Ed25519PrivateKey.generate()},
    "no key usage": {"key_usage": None},
    "a CA": {"ca": True},
}
REFUSED = {
    "P-224": {"key": ec.generate_private_key(ec.SECP224R1())},
    "RSA 1024": {"key": RSA_1024},
    "must-staple": {"extensions": (MUST_STAPLE,)},
    "no digitalSignature": {"key_usage": ("key_agreement",)},
}


def leaf(**knobs):
    return make_leaf(ISSUER, **knobs)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A directory that an Envoy serves from, whatever is put there."""
    path = tmp_path_factory.mktemp("gateway") / "ingress"
    sink = AtomicDirectory(path, layout=GATEWAY)
    put(sink, tls_files(leaf().raw()))
    with Envoy(path) as envoy:
        yield sink, envoy
    sink.close()


@pytest.fixture
def client(tmp_path):
    return Client(ROOT, tmp_path)


def put(sink, files):
    sink.publish(Publication(files, frozenset({"tls.key"}), {}))


def accepted(raw):
    """What certagent would publish of a set, or None."""
    kind = tls()
    try:
        return kind.files_of(kind.verify(kind.decode(raw), NOW).bundle)
    except MaterialRefused:
        return None


@pytest.mark.parametrize("case", LOADED)
def test_what_is_accepted_is_served(served, client, case):
    sink, envoy = served
    made = leaf(**LOADED[case])

    put(sink, accepted(made.raw()))

    until(lambda: client.handshake(envoy.port) == made.fingerprint)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_a_key_is_served_in_the_form_that_it_came_in(served, client, form):
    sink, envoy = served
    made = leaf()

    put(sink, accepted(made.raw(private_key=private_key_pem(made.key, form))))

    until(lambda: client.handshake(envoy.port) == made.fingerprint)


@pytest.mark.parametrize("case", REFUSED)
def test_what_envoy_refuses_is_refused_before(served, client, case):
    sink, envoy = served
    good, raw = leaf(), leaf(**REFUSED[case]).raw()
    assert accepted(raw) is None
    put(sink, tls_files(good.raw()))
    until(lambda: client.handshake(envoy.port) == good.fingerprint)
    before = envoy.failed_updates()

    put(sink, tls_files(raw))

    until(lambda: envoy.failed_updates() > before)
    assert client.handshake(envoy.port) == good.fingerprint


@pytest.mark.parametrize(("usages", "trusted"), [(("digital_signature",), True), ((), False)])
def test_a_clients_own_certificate_among_the_roots_is_trusted(tmp_path, usages, trusted):
    """With a CA that may not sign, nobody is; the one is accepted, and the other refused."""
    own = make_root(subject="CN=Client", ca=not usages, key_usage=usages or ("crl_sign",))
    who = own if usages else make_leaf(own, eku=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    raw = leaf(roots=(own,)).raw()
    sink = AtomicDirectory(tmp_path / "ingress", layout=GATEWAY)
    put(sink, tls_files(raw))

    with Envoy(tmp_path / "ingress", mutual=True) as envoy:
        assert Client(ROOT, tmp_path, who).is_refused(envoy.port) is not trusted

    assert (accepted(raw) is not None) is trusted
    sink.close()


def test_a_gateway_that_serves_what_was_published_is_confirmed(openbao, tmp_path, client):
    gateways = Gateways(openbao, openbao.kv(2), tmp_path)
    gateways.bundle("ingress")
    gateways.put("ingress", leaf().raw())
    assert gateways.verb("init", "--config", gateways.file).code == 0
    second = leaf()
    with Envoy(tmp_path / "ingress") as envoy:
        gateways.bundles[0]["confirm"] = {
            "address": f"127.0.0.1:{envoy.port}",
            "serverName": "ingress.example.com",
        }
        with gateways.run() as agent:
            agent.until(lambda: gateways.get("/readyz")[0] == 200)
            gateways.put("ingress", second.raw())

            agent.until(lambda: agent.logged("confirmed: the reader took the set", version="2"))

        assert client.handshake(envoy.port) == second.fingerprint


def test_an_agent_keeps_an_envoy_fresh_and_a_bad_push_away_from_it(openbao, tmp_path, client):
    gateways = Gateways(openbao, openbao.kv(2), tmp_path)
    gateways.bundle("ingress")
    first, second = leaf(), leaf()
    gateways.put("ingress", first.raw())
    with gateways.run() as agent:
        agent.until(lambda: gateways.served("ingress"))
        with Envoy(tmp_path / "ingress") as envoy:
            assert client.handshake(envoy.port) == first.fingerprint

            gateways.put("ingress", second.raw(*reversed(second.sent)))
            agent.until(lambda: client.handshake(envoy.port) == second.fingerprint)
            gateways.put("ingress", leaf(key=RSA_1024).raw())
            agent.until(lambda: agent.logged("version 3 refused", code="key-too-small"))

            assert client.handshake(envoy.port) == second.fingerprint
            assert envoy.failed_updates() == 0
