"""Whether a reader took a set, told by real TLS servers: good ones, stubborn ones, broken ones."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from contextlib import closing, contextmanager, suppress
from itertools import pairwise

import pytest

from certagent.errors import ConfigurationError
from certagent.material.certificates import Certificate
from certagent.runtime import handshake
from certagent.runtime.confirmation import (
    FIRST_PAUSE,
    LATE_PAUSE,
    LONGEST_PAUSE,
    Confirmer,
    IssuedBy,
    NotTaken,
    Serves,
    shown,
)
from certagent.runtime.handshake import Reader, Unanswered
from tests.support.material import cert_pem, make_root
from tests.support.process import until

LONG = 20.0  # seconds after which a test has failed
NOW = 1000.0  # a monotonic moment


@pytest.fixture(scope="module")
def root():
    return make_root()


@pytest.fixture(scope="module")
def old(root):
    return root.intermediate()


@pytest.fixture(scope="module")
def new(root):
    return root.intermediate()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """Return a server's context for a leaf: what a reader has once it read its files."""
    directory = tmp_path_factory.mktemp("leaves")

    def context(leaf, **how):
        cert, key = directory / "cert.pem", directory / "key.pem"
        cert.write_bytes(leaf.pem)
        key.write_bytes(leaf.key_pem)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(cert, key)
        for name, value in how.items():
            setattr(made, name, value)
        return made

    return context


def istiod(ca):
    """What istiod serves under a CA: each time it reloads, another one."""
    return ca.workload_leaf("spiffe://cluster.local/ns/istio-system/sa/istiod")


@contextmanager
def listening(answer):
    """Give every connection to `answer`, in a thread; yield the reader's address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        over = threading.Event()

        def serve():
            with suppress(OSError):
                while not over.is_set():
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(LONG)
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield Reader(host, port)
        finally:
            over.set()
            with suppress(OSError):
                socket.create_connection((host, port), 1).close()
            thread.join(LONG)


class TLSServer:
    """A TLS server that reloads when it is told to."""

    def __init__(self, context):
        self.context = context
        self.names = []

    def __call__(self, connection):
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        with self.context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)


@contextmanager
def serving(context):
    server = TLSServer(context)
    with listening(server) as reader:
        yield server, reader


def confirmer(reader, expectation, **how):
    return Confirmer(reader, expectation, NOW, **how)


def at_the_end(waiting):
    """Turn once more when the reader's time is over."""
    return waiting.turn(NOW + LONG * 10)


def certificate(leaf):
    return Certificate.load(ssl.PEM_cert_to_DER_cert(leaf.pem.decode()))


# istiod


def test_an_istiod_that_reloaded_is_confirmed(contexts, new):
    with serving(contexts(istiod(new))) as (_, reader):
        waiting = confirmer(reader, IssuedBy(certificate(new)))

        done = waiting.turn(NOW + 0.5)

    assert (done.state, done.after, done.reason, done.hint) == ("confirmed", 0.5, "", "")
    assert waiting.due == float("inf")


def test_a_set_is_pending_until_istiod_reloads(contexts, old, new):
    with serving(contexts(istiod(old))) as (server, reader):
        waiting = confirmer(reader, IssuedBy(certificate(new)))
        assert waiting.turn(NOW + 1).state == "pending"

        server.context = contexts(istiod(new))

        assert waiting.turn(NOW + 2).state == "confirmed"


def test_an_istiod_that_does_not_reload_is_named_with_what_it_serves(contexts, old, new):
    leaf = istiod(old)
    with serving(contexts(leaf)) as (_, reader):
        done = at_the_end(confirmer(reader, IssuedBy(certificate(new))))

    assert done.state == "unconfirmed"
    assert f"still serves the old certificate {leaf.fingerprint}" in done.reason
    assert reader.address in done.reason
    assert certificate(new).fingerprint in done.reason
    assert "subPath" in done.hint
    assert "watcher died" in done.hint


def test_after_a_change_of_roots_the_multiroot_setting_is_the_likely_cause(contexts, old, new):
    with serving(contexts(istiod(old))) as (_, reader):
        done = at_the_end(confirmer(reader, IssuedBy(certificate(new)), roots_changed=True))

    assert "ISTIO_MULTIROOT_MESH=true" in done.hint


def test_an_issuer_of_the_same_name_and_another_key_is_not_the_published_one(contexts, root):
    published, twin = root.intermediate("one"), root.intermediate("one")
    assert published.certificate.subject == twin.certificate.subject

    with serving(contexts(istiod(twin))) as (_, reader):
        done = at_the_end(confirmer(reader, IssuedBy(certificate(published))))

    assert done.state == "unconfirmed"


def test_where_the_signer_stays_only_a_new_serving_certificate_confirms(contexts, new):
    # A change of roots alone: the CA that signed what was served before is the published one.
    with serving(contexts(istiod(new))) as (server, reader):
        expectation = IssuedBy(certificate(new), before=shown(reader))
        waiting = confirmer(reader, expectation, roots_changed=True)
        assert waiting.turn(NOW + 1).state == "pending"
        assert expectation.before in waiting.confirmation.reason

        server.context = contexts(istiod(new))

        assert waiting.turn(NOW + 2).state == "confirmed"


def test_a_restart_of_the_reader_ends_the_alarm(contexts, old, new):
    with serving(contexts(istiod(old))) as (server, reader):
        waiting = confirmer(reader, IssuedBy(certificate(new)))
        assert waiting.turn(NOW + 30).state == "unconfirmed"
        assert waiting.due == NOW + 30 + LATE_PAUSE

        server.context = contexts(istiod(new))

        assert waiting.turn(waiting.due).state == "confirmed"


def test_a_serving_certificate_that_cannot_be_read_is_no_confirmation(new):
    with pytest.raises(NotTaken, match="cannot be read"):
        IssuedBy(certificate(new)).examine(b"no DER")


# A gateway


def test_a_gateway_that_serves_the_published_leaf_is_confirmed(contexts, new):
    leaf = istiod(new)
    with serving(contexts(leaf)) as (_, reader):
        done = confirmer(reader, Serves(leaf.fingerprint)).turn(NOW + 1)

    assert done.state == "confirmed"


def test_a_gateway_that_serves_the_old_leaf_is_not(contexts, new):
    leaf, published = istiod(new), istiod(new)
    with serving(contexts(leaf)) as (_, reader):
        done = at_the_end(confirmer(reader, Serves(published.fingerprint)))

    assert done.state == "unconfirmed"
    assert f"still serves the old certificate {leaf.fingerprint}" in done.reason
    assert "subPath" in done.hint


def test_a_gateway_is_asked_for_the_host_that_it_serves(contexts, new):
    leaf = istiod(new)
    with serving(contexts(leaf)) as (server, reader):
        named = Reader(reader.host, reader.port, "shop.example.com")

        assert confirmer(named, Serves(leaf.fingerprint)).turn(NOW + 1).state == "confirmed"
        assert server.names == ["shop.example.com"]


def test_a_gateway_that_asks_for_a_client_certificate_shows_its_own_first(contexts, new, tmp_path):
    leaf = istiod(new)
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(cert_pem(new.root.certificate))
    context = contexts(leaf)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(context) as (_, reader):
        assert confirmer(reader, Serves(leaf.fingerprint)).turn(NOW + 1).state == "confirmed"


# Servers that answer no question


def test_a_port_where_nobody_listens_is_named(new):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        reader = Reader(*held.getsockname())
        done = at_the_end(confirmer(reader, IssuedBy(certificate(new))))

    assert done.state == "unconfirmed"
    assert done.reason == f"{reader.address} refused the connection"
    assert "confirm.address" in done.hint


def bounded(reader):
    """Shake hands, and return why it failed; a look that takes too long fails the test."""
    begin = time.monotonic()
    with pytest.raises(Unanswered) as failed:
        handshake.handshake(reader)
    assert time.monotonic() - begin < handshake.ATTEMPT_SECONDS + 3
    return str(failed.value)


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(handshake, "ATTEMPT_SECONDS", 0.3)


@pytest.mark.usefixtures("hasty")
def test_a_server_that_hangs_costs_one_bounded_look():
    over = threading.Event()
    with listening(lambda _: over.wait(LONG)) as reader:
        reason = bounded(reader)
        over.set()

    assert reason.startswith("hangs")


@pytest.mark.usefixtures("hasty")
def test_a_server_that_drips_costs_one_bounded_look():
    over = threading.Event()

    def drip(connection):
        # The head of a handshake record that says 16 KiB are to come.
        connection.sendall(b"\x16\x03\x03\x3f\xff\x02")
        while not over.wait(0.05):
            connection.sendall(b"\x00")

    with listening(drip) as reader:
        reason = bounded(reader)
        over.set()

    assert reason.startswith("hangs")


def test_a_server_that_resets_is_told_from_one_that_refuses():
    def reset(connection):
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listening(reset) as reader:
        assert bounded(reader) == "broke the connection off in the handshake"


def test_a_server_that_closes_is_told_as_one_that_resets():
    with listening(lambda connection: connection.recv(65536)) as reader:
        assert bounded(reader) == "broke the connection off in the handshake"


def test_plain_http_is_not_tls():
    def http(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with listening(http) as reader:
        assert bounded(reader).startswith("does not speak TLS")


def test_an_alert_of_the_server_is_told_by_its_name():
    def refuse(connection):
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure

    with listening(refuse) as reader:
        assert "HANDSHAKE_FAILURE" in bounded(reader)


def test_other_failures_of_a_connection_are_told_as_the_kernel_does(monkeypatch):
    def unreachable(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)

    assert bounded(Reader("127.0.0.1", 1)) == "cannot be connected to: Network is unreachable"


def test_other_failures_of_a_handshake_are_told_as_the_kernel_does(monkeypatch):
    def fails(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", fails)
    with listening(lambda connection: connection.recv(1)) as reader:
        assert bounded(reader) == "failed in the handshake: Input/output error"


def test_a_server_without_a_certificate_shows_none(monkeypatch, contexts, new):
    # No cipher that OpenSSL offers by itself allows it: a pre-shared key would.
    monkeypatch.setattr(ssl.SSLSocket, "getpeercert", lambda *_, **__: None)
    with serving(contexts(istiod(new))) as (_, reader):
        assert bounded(reader) == "showed no certificate"


def test_who_does_not_answer_before_a_publication_showed_nothing():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))

        assert shown(Reader(*held.getsockname())) == ""


# When to look


class Silent:
    """A reader that is asked, and never answers."""

    def __init__(self, monkeypatch):
        self.asked = 0
        monkeypatch.setattr("certagent.runtime.confirmation.handshake", self)

    def __call__(self, _):
        self.asked += 1
        raise Unanswered("refused the connection")


def test_nobody_is_asked_before_the_first_look_is_due(monkeypatch, new):
    silent = Silent(monkeypatch)
    waiting = confirmer(Reader("127.0.0.1", 1), IssuedBy(certificate(new)))

    assert waiting.turn(NOW + FIRST_PAUSE / 2).state == "pending"
    assert silent.asked == 0


def test_looks_become_rarer_and_the_last_is_at_the_end_of_the_reader_s_time(monkeypatch, new):
    Silent(monkeypatch)
    waiting = confirmer(Reader("127.0.0.1", 1, within=30.0), IssuedBy(certificate(new)))
    looks = []
    while waiting.confirmation.state == "pending":
        looks.append(waiting.due - NOW)
        waiting.turn(waiting.due)

    pauses = [after - before for before, after in pairwise(looks)]
    assert looks[0] == FIRST_PAUSE
    assert looks[-1] == 30.0
    assert len(looks) < 12
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == LONGEST_PAUSE
    assert waiting.confirmation.after == 30.0


def test_a_late_turn_still_looks_before_it_gives_up(contexts, new):
    with serving(contexts(istiod(new))) as (_, reader):
        assert at_the_end(confirmer(reader, IssuedBy(certificate(new)))).state == "confirmed"


def test_the_loop_s_way_of_turning_sees_a_reload_within_the_second(contexts, old, new):
    with serving(contexts(istiod(old))) as (server, reader):
        waiting = Confirmer(reader, IssuedBy(certificate(new)), time.monotonic())
        reload = threading.Timer(0.3, setattr, (server, "context", contexts(istiod(new))))
        reload.start()

        until(lambda: waiting.turn(time.monotonic()).state == "confirmed")
        reload.join()

    assert 0.3 <= waiting.confirmation.after < 5


# Where to look


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:15012", "127.0.0.1", 15012), ("[::1]:8443", "::1", 8443)],
)
def test_an_address_is_read_and_written_alike(text, host, port):
    reader = Reader.at(text, "shop.example.com", 5.0)

    assert (reader.host, reader.port) == (host, port)
    assert (reader.server_name, reader.within) == ("shop.example.com", 5.0)
    assert reader.address == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":15012",
        "localhost:15012",
        "10.0.0.1:15012",
        "istiod.istio-system.svc:15012",
        "::1:15012",
        "[127.0.0.1]:15012",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:1e3",
        "127.0.0.1:²",
        "127.0.0.1:" + "9" * 5000,
    ],
)
def test_what_is_no_loopback_address_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not an address to confirm"):
        Reader.at(text)


@pytest.mark.parametrize("name", [".example.com", "a..b", "a" * 64 + ".com", "a\0b", "ü" * 80])
def test_what_is_no_server_name_is_refused_at_the_start(name):
    with pytest.raises(ConfigurationError, match="is not a server name"):
        Reader.at("127.0.0.1:8443", name)
