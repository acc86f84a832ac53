"""OpenSSL as the judge: what is accepted serves a handshake, what peers refuse is refused."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certagent.errors import MaterialRefused
from certagent.material.serving import tls
from tests.support import material
from tests.support.material import ANY, CLIENT, SERVER, make_leaf, make_root

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
KEY = material.new_key()
ROOT = make_root()
MIDDLE = ROOT.middle(pathlen=1)
CLIENTS = make_root(subject="CN=Clients")
CLIENT_LEAF = make_leaf(CLIENTS, eku=(CLIENT,))


@dataclass(frozen=True)
class Wire:
    """Two ends in memory; `shake` raises what either side raises."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    def shake(self) -> None:
        upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            self.client.wrap_bio(downstream, upstream, server_hostname="localhost"),
            self.server.wrap_bio(upstream, downstream, server_side=True),
        ]
        for _ in range(10):
            waiting = []
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    waiting.append(end)
            ends = waiting
        assert not ends


def context(purpose, files, directory, version):
    """A side of TLS that shows these files."""
    made = ssl.SSLContext(purpose)
    made.minimum_version = made.maximum_version = version
    if files:
        for name, data in files.items():
            (directory / name).write_bytes(data)
        made.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    return made


def serves(files, root, directory, version) -> bool:
    """Whether a client that trusts the root takes a server with these files."""
    try:
        server = context(ssl.PROTOCOL_TLS_SERVER, files, directory, version)
        client = context(ssl.PROTOCOL_TLS_CLIENT, None, directory, version)
        client.load_verify_locations(cadata=root.pem.decode())
        Wire(server, client).shake()
    except ssl.SSLError:
        return False
    return True


def is_known(files, root, directory, version) -> bool:
    """Whether a server that asks for certificates under the root takes a client with these."""
    try:
        own = make_leaf(ROOT)
        pem = {"tls.key": own.key_pem, "tls.crt": own.pem}
        server = context(ssl.PROTOCOL_TLS_SERVER, pem, directory, version)
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(cadata=root.pem.decode())
        client = context(ssl.PROTOCOL_TLS_CLIENT, files, directory, version)
        client.load_verify_locations(cadata=ROOT.pem.decode())
        Wire(server, client).shake()
    except ssl.SSLError:
        return False
    return True


def published(raw, usage="server"):
    """The files that would be published, or None."""
    kind = tls(usage)
    try:
        return kind.files_of(kind.verify(kind.decode(raw), NOW).bundle)
    except MaterialRefused:
        return None


def as_stored(raw):
    """The files as they were stored: what a plain copy would publish."""
    return {name: data for name, data in material.tls_files(raw).items() if data}


def mostly(good, *others):
    """Draw the good one so often that a third of all sets is accepted."""
    return st.sampled_from([good] * 5 * len(others) + list(others))


leaves = st.fixed_dictionaries(
    {
        "eku": mostly((SERVER, CLIENT), None, (SERVER,), (CLIENT,), (ANY,)),
        "key_usage": mostly(("digital_signature",), None, ("key_encipherment",)),
        "not_after": mostly(NOW + 60 * DAY, NOW - DAY),
        "not_before": mostly(NOW - 2 * DAY, NOW - 90 * DAY),
        "ca": mostly(False, True, None),
        "dns": mostly(("localhost",), ("localhost", "*.example.com"), ()),
    }
)
issuers = st.fixed_dictionaries(
    {
        "eku": mostly(None, (SERVER, CLIENT), (CLIENT,)),
        "ca": mostly(True, False),
        "pathlen": mostly(0, None),
        "not_after": mostly(NOW + 60 * DAY, NOW - DAY),
        "key_usage": mostly(material.ISTIO_KEY_USAGE, ("digital_signature",)),
    }
)
examples = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    leaf=leaves, issuer=issuers, order=st.permutations(range(3)), version=st.sampled_from(VERSIONS)
)
@examples
def test_whatever_is_accepted_of_a_server_serves_a_handshake(
    tmp_path, leaf, issuer, order, version
):
    by = MIDDLE.intermediate(dns=(), **issuer)
    made = make_leaf(by, key=KEY, **leaf)
    files = published(made.raw(*(made.sent[index] for index in order)))

    if files is not None:
        assert serves(files, ROOT, tmp_path, version)


@given(leaf=leaves, issuer=issuers, version=st.sampled_from(VERSIONS))
@examples
def test_whatever_is_accepted_of_a_client_is_taken_by_a_server(tmp_path, leaf, issuer, version):
    by = MIDDLE.intermediate(dns=(), **issuer)
    files = published(make_leaf(by, key=KEY, **leaf).raw(), "client")

    if files is not None:
        assert is_known(files, ROOT, tmp_path, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "broken",
    [
        lambda: make_leaf(not_after=NOW - DAY),
        lambda: make_leaf(dns=()),
        lambda: make_leaf(dns=("w*.example.com",)),
        lambda: make_leaf(eku=(CLIENT,)),
        lambda: make_leaf(eku=(ANY,)),
        lambda: make_leaf(make_root().intermediate(dns=(), not_after=NOW - DAY)),
        lambda: make_leaf(make_root().intermediate(dns=(), eku=(CLIENT,))),
        lambda: make_leaf(make_root().intermediate(dns=(), ca=False)),
        lambda: make_leaf(make_root().middle(pathlen=0).intermediate(dns=())),
    ],
)
def test_what_is_refused_for_the_peers_fails_a_handshake(broken, version, tmp_path):
    made = broken()

    assert published(made.raw()) is None
    assert not serves(as_stored(made.raw()), made.issuer.root, tmp_path, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_key_of_another_certificate_serves_nobody(version, tmp_path):
    raw = make_leaf().raw(private_key=make_leaf().key_pem)

    assert published(raw) is None
    assert not serves(as_stored(raw), ROOT, tmp_path, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chain_that_a_plain_copy_would_break_with_serves(version, tmp_path):
    made = make_leaf(MIDDLE.intermediate(dns=()))
    raw = made.raw(*reversed(made.sent))

    assert not serves(as_stored(raw), ROOT, tmp_path, version)
    assert serves(published(raw), ROOT, tmp_path, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clients_certificate_is_known_by_the_roots_of_the_server(version, tmp_path):
    assert is_known(published(CLIENT_LEAF.raw(), "client"), CLIENTS, tmp_path, version)
    assert not is_known(as_stored(make_leaf(CLIENTS).raw()), CLIENTS, tmp_path, version)
