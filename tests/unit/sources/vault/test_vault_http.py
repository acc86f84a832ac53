"""What a server, a proxy or a network can do to a request, and what the agent makes of it."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from certagent.config.model import CertAuth, TokenAuth, VaultConfig
from certagent.errors import SourceUnavailable
from certagent.sources.http import deadline, proxies, transport
from certagent.sources.http.answers import MAX_BODY_BYTES
from certagent.sources.http.failures import one_line
from certagent.sources.vault.client import VaultClient, VaultRefused
from tests.support.openbao import free_port
from tests.support.process import until
from tests.support.scripted import ScriptedServer, answer
from tests.support.tls import TLSAuthority

SECRET = answer(200, {"data": {"x": 1}})


def client(address, outcomes=None, **options):
    options = {"connect_timeout": "5s", "request_timeout": "5s", "auth": TokenAuth(), **options}
    config = VaultConfig(address=address, **options)
    return VaultClient(config, Counter() if outcomes is None else outcomes)


def get(server, path="/v1/kv/data/x", **options):
    made = client(server.address, **options)
    try:
        return made.get(path)
    finally:
        made.close()


def replying(data, **options):
    return ScriptedServer(lambda *_: data, **options)


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (400, "denied"),
            (401, "denied"),
            (403, "denied"),
            (404, "missing"),
            (405, "unavailable"),
        ],
    )
    def test_a_refusal_keeps_vaults_reason(self, status, outcome):
        outcomes = Counter()
        with replying(answer(status, {"errors": ["no", "never"]})) as server:
            made = client(server.address, outcomes)
            with pytest.raises(VaultRefused) as refused:
                made.get("/v1/x")
            made.close()

        assert refused.value.answer == f"{status}: no; never"
        assert outcomes == {outcome: 1}

    @pytest.mark.parametrize("status", [412, 429, 472, 473, 500, 501, 502, 503, 504])
    def test_a_server_that_cannot_answer_is_unavailable(self, status):
        outcomes = Counter()
        with replying(answer(status, {"errors": ["busy"]})) as server:
            made = client(server.address, outcomes)
            with pytest.raises(SourceUnavailable, match=rf"\({status}: busy\)") as failed:
                made.get("/v1/x")
            made.close()

        assert failed.value.hint
        assert failed.value.retry_after is None
        assert outcomes == {"limited" if status == 429 else "unavailable": 1}
        assert len(server.asked) == 1  # nothing was retried

    @pytest.mark.parametrize("status", [101, 103, 304])
    def test_a_status_that_never_has_a_body_is_no_empty_answer(self, status):
        with (
            replying(answer(status)) as server,
            pytest.raises(SourceUnavailable, match=rf"\({status}\)"),
        ):
            get(server)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7),
            ("0.5", 0.5),
            ("-3", 0),
            ("soon", None),
            ("nan", None),
            (format_datetime(datetime(2000, 1, 1, tzinfo=UTC), usegmt=True), 0),
            ("Sat, 01 Jan 2000 00:00:00", 0),
            ("Sat, 01 Jan 2000 00:00:00 +9999999999999", None),
        ],
    )
    def test_retry_after_is_kept_in_seconds(self, header, seconds):
        with (
            replying(answer(429, {"errors": ["slow down"]}, Retry_After=header)) as server,
            pytest.raises(SourceUnavailable) as failed,
        ):
            get(server)

        assert failed.value.retry_after == seconds

    def test_retry_after_may_be_a_date(self):
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        with (
            replying(answer(503, Retry_After=date)) as server,
            pytest.raises(SourceUnavailable) as failed,
        ):
            get(server)

        assert 55 < failed.value.retry_after <= 60


class TestBody:
    @pytest.mark.parametrize(
        "body",
        [b"<html>", b"[1]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 50_000],
    )
    def test_something_else_than_a_json_object_is_unavailable(self, body):
        with (
            replying(answer(200, body)) as server,
            pytest.raises(SourceUnavailable, match="something else than JSON"),
        ):
            get(server)

    def test_an_answer_without_a_body_is_empty(self):
        with replying(answer(204)) as server:
            assert get(server) == {}

    @pytest.mark.parametrize("body", [b"<html>login</html>", b'{"errors": "text"}', b"[]"])
    def test_a_refusal_need_not_be_json(self, body):
        with replying(answer(403, body)) as server, pytest.raises(VaultRefused) as refused:
            get(server)

        assert refused.value.answer in ("403", "403: text")

    def test_a_body_that_does_not_end_is_cut_off_and_its_connection_closed(self):
        closed = threading.Event()

        def script(asked, connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                for _ in range(100):
                    connection.sendall(b" " * (1 << 20))
            except (BrokenPipeError, ConnectionResetError):
                closed.set()

        with ScriptedServer(script) as server:
            with pytest.raises(
                SourceUnavailable, match=f"more than {MAX_BODY_BYTES} bytes"
            ) as held:
                get(server, request_timeout="10s")

            assert closed.wait(5), held  # also while somebody looks at the failure

    def test_one_that_says_that_it_is_too_large_is_not_read(self):
        def script(asked, connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
            server.stopping.wait(5)

        server = ScriptedServer(script)
        with (
            server,
            pytest.raises(SourceUnavailable, match=f"more than {MAX_BODY_BYTES} bytes"),
        ):
            get(server, request_timeout="4s")

    def test_one_that_breaks_its_framing_is_not_quoted(self):
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for data in (b"canary\r\n", chunked + b"canary\r\n", chunked + b"2\r\n{}canary\r\n\r\n"):
            with replying(data) as server, pytest.raises(SourceUnavailable) as failed:
                get(server)

            assert "canary" not in str(failed.value)

    def test_what_follows_one_is_no_answer_to_the_next_request(self, tls):
        """Also when it came in one TLS record, so that the system has nothing left to tell of."""

        def script(asked, connection):
            stale = answer(200, {"data": {"x": "stale"}})
            fresh = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: %s\r\n\r\n{}" % (b"x" * 8140)
            connection.sendall(fresh + stale)
            connection.recv(1000)

        with ScriptedServer(script, tls.server_context()) as server:
            made = client(server.address, ca_file=str(tls.ca_file))
            answers = [made.get("/v1/x"), made.get("/v1/x")]
            made.close()

        assert answers == [{}, {}]

    def test_a_body_that_breaks_off_is_unavailable(self):
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
        with (
            replying(data) as server,
            pytest.raises(SourceUnavailable, match=r"The connection to .* failed"),
        ):
            get(server)

    def test_nonsense_instead_of_http_is_unavailable(self):
        with replying(b"SSH-2.0-OpenSSH\r\n") as server, pytest.raises(SourceUnavailable):
            get(server)


class TestDeadline:
    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 200 OK\r\n" + b"X-Drip: drop\r\n" * 100,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        ],
        ids=["headers", "continue"],
    )
    def test_headers_that_drip_do_not_outlast_it(self, data):
        self.outlasted(lambda server, connection: server.drip(connection, data))

    @pytest.mark.parametrize("head", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
    def test_a_body_that_drips_does_not_outlast_it(self, head):
        def script(server, connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            server.drip(connection, b"1\r\n \r\n" * 200)

        self.outlasted(script)

    def test_a_body_that_drips_over_tls_does_not_outlast_it(self, tls):
        def script(server, connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            server.drip(connection, b" " * 1000)

        context = tls.server_context()
        self.outlasted(script, context, ca_file=str(tls.ca_file))

    def test_a_server_that_hangs_does_not_outlast_it(self):
        self.outlasted(lambda server, _: server.stopping.wait(5))

    @staticmethod
    def outlasted(script, context=None, **options):
        server = ScriptedServer(lambda _, connection: script(server, connection) and None, context)
        with server:
            began = time.monotonic()
            with pytest.raises(SourceUnavailable, match="had not answered in full"):
                get(server, request_timeout="500ms", **options)
            assert 0.4 < time.monotonic() - began < 2

    def test_a_tls_handshake_that_hangs_ends_with_the_connect_timeout(self, tls):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            made = client(
                f"https://localhost:{listener.getsockname()[1]}",
                ca_file=str(tls.ca_file),
                connect_timeout="200ms",
                request_timeout="5s",
            )
            began = time.monotonic()
            with pytest.raises(SourceUnavailable, match="There was no connection"):
                made.get("/v1/x")

        assert time.monotonic() - began < 2

    def test_a_server_that_does_not_accept_ends_with_the_connect_timeout(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            with socket.create_connection(address, 1):  # it takes the only place in the queue
                made = client(
                    f"http://127.0.0.1:{address[1]}", connect_timeout="200ms", request_timeout="5s"
                )
                with pytest.raises(SourceUnavailable, match="There was no connection"):
                    made.get("/v1/x")

    def test_a_name_service_that_hangs_ends_with_the_connect_timeout(self, monkeypatch):
        asked, released = [], threading.Event()

        def hang(*question, **_):
            asked.append(question)
            released.wait(5)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

        monkeypatch.setattr(deadline.socket, "getaddrinfo", hang)
        made = client("http://vault.example", connect_timeout="100ms")
        for _ in range(3):
            with pytest.raises(SourceUnavailable, match="There was no connection"):
                made.get("/v1/x")
        assert len(asked) == 1  # look-ups that hang do not pile up

        released.set()
        with pytest.raises(SourceUnavailable, match="refused"):
            made.get("/v1/x")

    def test_no_time_is_left_after_the_deadline(self):
        over = deadline.Deadline()
        over.start(0)

        with pytest.raises(TimeoutError):
            over.remaining()


class TestConnecting:
    @staticmethod
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def test_a_closed_port_is_told_as_such(self):
        with pytest.raises(SourceUnavailable, match="Nothing listens at") as failed:
            client(f"http://127.0.0.1:{free_port()}").get("/v1/x")

        assert "VAULT_ADDR" in failed.value.hint
        assert len(str(failed.value).splitlines()) <= 3

    def test_a_name_that_does_not_resolve_is_told_as_such(self, monkeypatch):
        monkeypatch.setattr(deadline.socket, "getaddrinfo", self.unknown)
        with pytest.raises(SourceUnavailable, match=r"The name in http://vault\.example cannot be"):
            client("http://vault.example").get("/v1/x")

    def test_a_name_that_did_not_resolve_is_asked_for_again(self, monkeypatch):
        real = socket.getaddrinfo
        with replying(SECRET) as server:
            made = client(server.address)
            monkeypatch.setattr(deadline.socket, "getaddrinfo", self.unknown)
            for _ in range(2):
                with pytest.raises(SourceUnavailable, match="cannot be resolved"):
                    made.get("/v1/x")
            monkeypatch.setattr(deadline.socket, "getaddrinfo", real)

            assert made.get("/v1/x") == {"data": {"x": 1}}

    def test_a_name_that_cannot_be_one_is_unavailable(self):
        with pytest.raises(SourceUnavailable, match="label"):
            client(f"http://{'a' * 70}.example").get("/v1/x")

    def test_a_name_without_an_address_is_unavailable(self, monkeypatch):
        monkeypatch.setattr(deadline.socket, "getaddrinfo", lambda *_, **__: [])
        with pytest.raises(SourceUnavailable, match="has no address"):
            client("http://vault.example").get("/v1/x")

    def test_credentials_in_the_address_are_not_shown(self):
        with pytest.raises(SourceUnavailable) as failed:
            client(f"http://user:canary@127.0.0.1:{free_port()}").get("/v1/x")

        assert "canary" not in str(failed.value)

    @pytest.mark.parametrize(("idle", "connections"), [(60, 1), (0, 2)])
    def test_a_connection_is_kept_for_the_next_request_unless_it_idled_for_long(
        self, monkeypatch, idle, connections
    ):
        def script(asked, connection):
            while True:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                if not connection.recv(1000):  # the next request, on the same connection
                    return

        monkeypatch.setattr(transport, "MAX_IDLE", idle)
        with ScriptedServer(script) as server:
            made = client(server.address)
            made.get("/v1/x")
            made.get("/v1/x")
            made.close()

        assert len(server.asked) == connections


class TestTLS:
    def test_the_named_authority_is_trusted(self, tls):
        with replying(SECRET, tls=tls.server_context()) as server:
            assert get(server, ca_file=str(tls.ca_file)) == {"data": {"x": 1}}

    def test_requests_ca_bundle_is_honoured_and_the_named_file_wins(
        self, tls, tmp_path, monkeypatch
    ):
        other = TLSAuthority(tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.ca_file))
        with replying(SECRET, tls=tls.server_context()) as server:
            assert get(server) == {"data": {"x": 1}}
            with pytest.raises(SourceUnavailable, match="is not trusted"):
                get(server, ca_file=str(other.ca_file))

    def test_the_systems_authorities_are_trusted_where_none_is_named(self, tls, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))
        with replying(SECRET, tls=tls.server_context()) as server:
            assert get(server) == {"data": {"x": 1}}

    def test_an_unknown_authority_names_the_setting(self, tls):
        with (
            replying(SECRET, tls=tls.server_context()) as server,
            pytest.raises(SourceUnavailable, match="is not trusted") as failed,
        ):
            get(server)

        assert "vault.caFile (VAULT_CACERT)" in failed.value.hint

    def test_an_expired_certificate_is_told(self, tls):
        expired = datetime.now(UTC) - timedelta(hours=1)
        with (
            replying(SECRET, tls=tls.server_context("expired", not_after=expired)) as server,
            pytest.raises(SourceUnavailable, match="certificate has expired"),
        ):
            get(server, ca_file=str(tls.ca_file))

    def test_the_authorities_of_a_directory_are_trusted(self, tls, tmp_path, monkeypatch):
        self.hashed(tls, tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
        with replying(SECRET, tls=tls.server_context()) as server:
            assert get(server) == {"data": {"x": 1}}

    @pytest.mark.parametrize("ca", ["a file", "a directory", "the system's"])
    @pytest.mark.parametrize("missing", [True, False], ids=["missing", "a directory"])
    def test_a_file_of_the_login_that_cannot_be_one_is_named(
        self, tls, tmp_path, monkeypatch, ca, missing
    ):
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        self.hashed(tls, tmp_path)
        named = {"a file": str(tls.ca_file), "a directory": str(tmp_path), "the system's": ""}
        file = tmp_path / "identity"
        if not missing:
            file.mkdir()
        auth = CertAuth(cert_file=str(file), key_file=str(file))
        with (
            replying(SECRET, tls=tls.server_context()) as server,
            pytest.raises(SourceUnavailable, match=str(file)) as failed,
        ):
            get(server, ca_file=named[ca], auth=auth)

        assert "the files of vault.auth" in failed.value.hint

    @staticmethod
    def hashed(tls, directory):
        """Put an authority where OpenSSL looks for it in a directory."""
        shown = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", tls.ca_file],
            check=True,
            capture_output=True,
            text=True,
        )
        (directory / f"{shown.stdout.strip()}.0").write_text(tls.ca_pem)

    def test_a_key_that_is_encrypted_is_told_and_no_terminal_asked_for_its_password(self, tls):
        cert_file, key_file = tls.issue("encrypted", client=True)
        key = load_pem_private_key(key_file.read_bytes(), None)
        key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
        )
        auth = CertAuth(cert_file=str(cert_file), key_file=str(key_file))
        with (
            replying(SECRET, tls=tls.server_context()) as server,
            pytest.raises(SourceUnavailable, match="TLS with") as failed,
        ):
            get(server, ca_file=str(tls.ca_file), auth=auth)

        assert "the files of vault.auth" in failed.value.hint

    def test_a_ca_file_that_is_missing_or_not_pem_is_told(self, tls, tmp_path):
        (tmp_path / "ca.pem").write_text("nothing")
        with replying(SECRET, tls=tls.server_context()) as server:
            for path in ("/nowhere/ca.pem", str(tmp_path / "ca.pem")):
                with pytest.raises(SourceUnavailable, match=r"TLS|/nowhere") as failed:
                    get(server, ca_file=path)
                assert "vault.caFile" in failed.value.hint

    def test_a_server_that_does_not_speak_tls_is_told(self, tls):
        def greet(listener):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
                connection.recv(1000)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            greeter = threading.Thread(target=greet, args=(listener,), daemon=True)
            greeter.start()
            made = client(
                f"https://localhost:{listener.getsockname()[1]}", ca_file=str(tls.ca_file)
            )
            with pytest.raises(SourceUnavailable, match="TLS with"):
                made.get("/v1/x")
            greeter.join(5)

    def test_a_ca_file_that_changes_is_read_at_the_next_connection(self, tls, tmp_path):
        ca = tmp_path / "named.pem"
        (tmp_path / "other").mkdir()
        ca.write_text(TLSAuthority(tmp_path / "other").ca_pem)
        with replying(SECRET, tls=tls.server_context()) as server:
            made = client(server.address, ca_file=str(ca))
            with pytest.raises(SourceUnavailable):
                made.get("/v1/x")
            ca.write_text(tls.ca_pem)

            assert made.get("/v1/x") == {"data": {"x": 1}}


class TestRedirects:
    def test_a_standbys_redirect_is_followed_with_method_body_query_and_token(self):
        with replying(SECRET) as active:
            location = f"{active.address}/v1/x?version=3"
            with replying(answer(307, Location=location)) as standby:
                made = client(standby.address)
                made.token = "the-token"
                made.request("POST", "/v1/x", {"a": 1}, {"version": 3})
                made.close()

        (asked,) = active.asked
        assert (asked.method, asked.path, asked.body) == ("POST", "/v1/x?version=3", b'{"a": 1}')
        assert asked.headers["x-vault-token"] == "the-token"

    def test_a_redirect_counts_as_one_request(self):
        outcomes = Counter()
        with (
            replying(SECRET) as active,
            replying(answer(302, Location=active.address)) as standby,
        ):
            made = client(standby.address, outcomes)
            made.get("/v1/x")
            made.close()

        assert outcomes == {"ok": 1}

    def test_a_redirect_without_a_location_is_no_answer(self):
        with replying(answer(307)) as server, pytest.raises(SourceUnavailable, match="307"):
            get(server)

    def test_redirects_in_a_circle_end(self):
        server = ScriptedServer(lambda asked, _: answer(307, Location=asked.path))
        with server, pytest.raises(SourceUnavailable, match="redirects: more than 3 times"):
            get(server)

        assert len(server.asked) == 4

    def test_connections_to_where_former_ones_led_do_not_pile_up(self):
        """As after each failover of a cluster whose nodes get new addresses."""
        opened = []

        def stay(asked, connection):
            opened.append(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            if not connection.recv(1000):
                opened.remove(connection)

        with contextlib.ExitStack() as stack:
            active = [stack.enter_context(ScriptedServer(stay)) for _ in range(8)]
            led_to = iter(active)
            standby = stack.enter_context(
                ScriptedServer(lambda *_: answer(307, Location=next(led_to).address))
            )
            made = client(standby.address)
            for _ in active:
                made.get("/v1/x")

            assert until(lambda: len(opened) <= transport.MAX_REDIRECTS + 1)
            made.close()

    def test_a_redirect_from_https_to_http_is_not_followed(self, tls):
        with replying(SECRET) as plain:
            down = answer(307, Location=plain.address)
            with (
                replying(down, tls=tls.server_context()) as server,
                pytest.raises(SourceUnavailable, match="not to https"),
            ):
                get(server, ca_file=str(tls.ca_file))

        assert plain.asked == []

    def test_plain_http_to_another_host_is_followed_only_when_asked_for(self):
        with replying(SECRET) as other:
            away = answer(307, Location=other.address.replace("localhost", "127.0.0.1"))
            with replying(away) as server:
                with pytest.raises(SourceUnavailable, match="not to https"):
                    get(server)
                assert get(server, plain_http=True) == {"data": {"x": 1}}


class TestProxy:
    @staticmethod
    def tunnel(asked, connection):
        """A CONNECT proxy, to loopback."""
        port = int(asked.path.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 5) as there:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

            def pump(source, sink):
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

            back = threading.Thread(target=pump, args=(there, connection), daemon=True)
            back.start()
            pump(connection, there)
            back.join(5)

    @pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
    def test_https_proxy_is_honoured(self, tls, monkeypatch, proxy_tls):
        monkeypatch.setattr(proxies, "is_loopback", lambda _: False)  # another machine
        context = tls.server_context("proxy") if proxy_tls else None
        with (
            ScriptedServer(self.tunnel, context) as proxy,
            replying(SECRET, tls=tls.server_context()) as server,
        ):
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
            assert get(server, ca_file=str(tls.ca_file), request_timeout="5s")
            assert proxy.asked[0].method == "CONNECT"
            monkeypatch.setenv("NO_PROXY", "localhost")
            assert get(server, ca_file=str(tls.ca_file))
            assert len(proxy.asked) == 1

    @pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
    def test_a_proxy_that_drips_does_not_outlast_the_deadline(self, tls, monkeypatch, proxy_tls):
        proxy = ScriptedServer(
            lambda _, connection: proxy.drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99),
            tls.server_context("proxy") if proxy_tls else None,
        )
        with proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
            began = time.monotonic()
            with pytest.raises(SourceUnavailable):
                client(
                    "https://vault.example", ca_file=str(tls.ca_file), request_timeout="500ms"
                ).get("/v1/x")
            assert time.monotonic() - began < 2

    def test_a_proxy_that_refuses_is_named_with_what_it_said(self, monkeypatch):
        with replying(answer(407)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
            with pytest.raises(SourceUnavailable, match=r"The proxy on the way .* 407") as failed:
                client("https://vault.example").get("/v1/x")

        assert "HTTPS_PROXY" in failed.value.hint

    def test_a_proxy_that_is_not_trusted_is_not_taken_for_the_server(self, tls, monkeypatch):
        with replying(SECRET, tls=tls.server_context("proxy")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
            with pytest.raises(SourceUnavailable, match=r"The proxy on the way .* verify failed"):
                client("https://vault.example").get("/v1/x")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_plain_http_to_loopback_never_leaves_the_pod(self, monkeypatch, host, variable):
        with replying(SECRET) as proxy, replying(SECRET) as server:
            monkeypatch.setenv(variable, proxy.address)
            made = client(server.address.replace("localhost", host))
            made.get("/v1/x")
            made.close()

            assert len(server.asked) == 1
            assert proxy.asked == []

    @pytest.mark.parametrize(
        "proxy",
        [
            "socks5://u:canary@127.0.0.1:1",
            "SOCKS5h://127.0.0.1:1",
            "ftp://u:canary@127.0.0.1:1",
            "http://u:canary@\u2100:1",
            "http://u:canary@proxy:port",
        ],
    )
    def test_a_proxy_that_cannot_be_one_is_named(self, monkeypatch, proxy):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(
            SourceUnavailable,
            match=r"The proxy on the way to https://vault\.example cannot be used",
        ) as failed:
            client("https://vault.example").get("/v1/x")

        assert "HTTPS_PROXY" in failed.value.hint
        assert "canary" not in str(failed.value)


class TestWhatIsNotLookedAt:
    def test_netrc_and_the_client_certificate_of_vaults_cli_are_ignored(
        self, monkeypatch, tmp_path
    ):
        (tmp_path / ".netrc").write_text("default login user password canary\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        with (
            replying(SECRET) as active,
            replying(answer(307, Location=f"{active.address}/v1/x")) as standby,
        ):
            get(standby)

        for asked in (*standby.asked, *active.asked):
            assert "authorization" not in asked.headers

    def test_the_namespace_is_sent_where_there_is_one(self):
        with replying(SECRET) as server:
            get(server, namespace="team/mesh")
            get(server)

        inside, outside = server.asked
        assert inside.headers["x-vault-namespace"] == "team/mesh"
        assert "x-vault-namespace" not in outside.headers


def test_every_secret_is_told_to_the_log_before_it_is_sent():
    told = []
    with ScriptedServer(lambda *_: SECRET) as server:
        config = VaultConfig(address=server.address, auth=TokenAuth())
        made = VaultClient(config, Counter(), told.append)
        made.token = "the-client-token"
        made.post("/v1/auth/approle/login", {"secret_id": "the-secret-id"})
        made.close()

    assert {"the-client-token", "the-secret-id"} <= set(told)


class TestForeignText:
    def test_it_is_one_bounded_printable_line(self):
        text = one_line("a\x1b[31m\n\tb\u2028c" + "d" * 1000)

        assert text.startswith("a [31m b cddd")
        assert len(text) == 300

    def test_secrets_and_what_looks_like_a_token_are_redacted(self):
        jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
        text = one_line(f"abc-def abc {jwt} hvs.CAESIJ123456789012345678", ["abc", "abc-def", ""])

        assert text == "[redacted] [redacted] [redacted] [redacted]"

    def test_an_answer_that_echoes_the_request_is_redacted(self, caplog):
        echo = ScriptedServer(
            lambda asked, _: answer(
                400, {"errors": [asked.headers["x-vault-token"], asked.body.decode()]}
            )
        )
        with echo, caplog.at_level(logging.DEBUG):
            made = client(echo.address)
            made.token = "canary-token"
            with pytest.raises(VaultRefused) as refused:
                made.post("/v1/x", {"role": "istiod", "jwt": "canary-jwt"})
            made.close()

        assert "canary" not in str(refused.value) + caplog.text
        assert "istiod" in refused.value.reason

    def test_a_request_is_one_line_in_the_debug_log(self, caplog):
        with replying(SECRET) as server, caplog.at_level(logging.DEBUG, "certagent"):
            get(server)

        (record,) = (record for record in caplog.records if record.name == "certagent.vault")
        assert record.getMessage().startswith("GET /v1/kv/data/x: 200, ")
