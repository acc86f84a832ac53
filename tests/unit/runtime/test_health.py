"""Probes over HTTP, from clients that are polite, hostile, or asleep."""

from __future__ import annotations

import errno
import http.client
import logging
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import pytest

from certagent.errors import ConfigurationError
from certagent.runtime import health
from certagent.runtime.health import HealthServer, livez, parse_address, readyz
from certagent.runtime.status import AgentStatus, BundleStatus

LONG = 20.0  # seconds after which a test has failed


def status(*bundles, turned_at=0.0, within=1.0):
    return AgentStatus(bundles, turned_at, within)


@contextmanager
def serving(state=None, metrics=lambda: b"metric 1\n", address="127.0.0.1:0"):
    present = state or status(turned_at=time.monotonic(), within=LONG)
    with closing(HealthServer(address, lambda: present, metrics)) as server:
        yield server


def ask(server, path, method="GET"):
    """Return status, headers and body of an answer."""
    with closing(http.client.HTTPConnection(*server.address, timeout=LONG)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def raw(server, request):
    """Return all that the server sends for `request`, to the end of the connection."""
    with socket.create_connection(server.address, timeout=LONG) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


# The decisions


@pytest.mark.parametrize(("now", "code"), [(100.0, 200), (130.0, 200), (130.1, 503)])
def test_a_loop_is_alive_until_its_turn_is_overdue(now, code):
    assert livez(status(turned_at=100.0, within=30.0), now).status == code


def test_a_dead_loop_is_explained_in_one_line():
    answer = livez(status(turned_at=100.0, within=30.0), 190.0)

    assert answer.body == b"the loop last turned 90 s ago, and is 60 s late\n"


def test_an_agent_is_ready_when_all_required_bundles_are():
    bundles = (BundleStatus("a", ready=True), BundleStatus("b", required=False))

    assert readyz(status(*bundles)).status == 200


def test_an_agent_that_is_not_ready_names_what_is_missing():
    bundles = (
        BundleStatus("a"),
        BundleStatus("b", ready=True),
        BundleStatus("c", required=False),
        BundleStatus("d"),
    )

    answer = readyz(status(*bundles))

    assert (answer.status, answer.body) == (503, b"not published: a, d\n")


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        (":9089", ("", 9089)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9089", ("::1", 9089)),
        ("[::]:9089", ("::", 9089)),
    ],
)
def test_an_address_is_host_and_port(address, parsed):
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address",
    [
        ":" + "9" * 5000,
        "",
        "9089",
        "host",
        "host:",
        ":http",
        ":-1",
        ":65536",
        ":\u0661",
        "::1:9089",
        "[::1]",
    ],
)
def test_another_address_is_refused_with_what_to_write(address):
    with pytest.raises(ConfigurationError) as refused:
        parse_address(address)

    assert repr(address) in refused.value.message
    assert "HOST:PORT" in refused.value.hint


# The server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/livez", b"ok\n"),
        ("/readyz", b"ok\n"),
        ("/metrics", b"metric 1\n"),
        ("/livez?a=b", b"ok\n"),
    ],
)
def test_a_healthy_agent_answers(path, body):
    with serving() as server:
        code, headers, received = ask(server, path)

    assert (code, received) == (200, body)
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"].startswith("text/plain")


def test_metrics_are_typed_as_prometheus_wants_them():
    with serving() as server:
        assert "version=0.0.4" in ask(server, "/metrics")[1]["Content-Type"]


def test_an_agent_that_hangs_is_not_alive_and_may_be_ready():
    with serving(status(BundleStatus("a", ready=True), turned_at=-1000.0)) as server:
        assert ask(server, "/livez")[0] == 503
        assert ask(server, "/readyz")[0] == 200


def test_the_server_shows_the_present_state():
    states = [status(BundleStatus("a"))]
    with closing(HealthServer("127.0.0.1:0", lambda: states[-1], bytes)) as server:
        assert ask(server, "/readyz")[0] == 503
        states.append(status(BundleStatus("a", ready=True)))
        assert ask(server, "/readyz")[0] == 200


def test_head_answers_without_a_body():
    with serving() as server:
        code, headers, body = ask(server, "/livez", "HEAD")

    assert (code, headers["Content-Length"], body) == (200, "3", b"")


@pytest.mark.parametrize("path", ["/", "/livezz", "/livez/", "/../livez", "http://x/livez"])
def test_any_other_path_is_not_found(path):
    with serving() as server:
        assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_any_other_method_is_not_allowed(method):
    with serving() as server:
        code, headers, _ = ask(server, "/livez", method)

    assert (code, headers["Allow"]) == (405, "GET, HEAD")


def test_the_server_does_not_tell_what_it_is_made_of():
    with serving() as server:
        assert ask(server, "/livez")[1]["Server"] == "certagent"


@pytest.mark.parametrize("path", ["/livez", "/nowhere"])
def test_a_request_leaves_nothing_in_the_log_at_info(path, caplog):
    caplog.set_level(logging.INFO)

    with serving() as server:
        ask(server, path)

    assert caplog.records == []


def test_a_bug_in_the_metrics_is_a_500_and_a_record_and_the_probes_go_on(caplog):
    def broken():
        raise ZeroDivisionError

    with serving(metrics=broken) as server:
        assert ask(server, "/metrics")[0] == 500
        assert ask(server, "/livez")[0] == 200

    assert "a probe could not be answered" in caplog.text


# Clients


@pytest.mark.parametrize(
    "request_", [b"GARBAGE\r\n\r\n", b"GET /<script> HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n"]
)
def test_what_is_not_http_is_refused_without_being_echoed(request_):
    with serving() as server:
        answer = raw(server, request_)

    assert b"script" not in answer
    assert b"bad request" in answer or b"not supported" in answer


def test_an_http_0_9_client_is_answered():
    with serving() as server:
        assert raw(server, b"GET /livez\r\n\r\n") == b"ok\n"


def test_a_client_that_sends_too_much_is_cut_off():
    request = b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * health.REQUEST_BYTES

    with serving() as server:
        try:
            answer = raw(server, request)
        except ConnectionError:
            answer = b""

    assert answer == b""


def test_a_client_that_closes_at_once_is_no_event(caplog):
    with serving() as server:
        socket.create_connection(server.address).close()
        assert ask(server, "/livez")[0] == 200

    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_a_silent_client_does_not_hold_up_the_others():
    with serving() as server, socket.create_connection(server.address):
        begin = time.monotonic()
        assert ask(server, "/livez")[0] == 200
        assert time.monotonic() - begin < health.REQUEST_SECONDS


def test_a_client_that_drips_is_cut_off_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.3)
    over = threading.Event()

    def drip(connection):
        while not over.wait(0.02):
            try:
                connection.sendall(b"X")
            except OSError:
                return

    with serving() as server, socket.create_connection(server.address, timeout=LONG) as connection:
        dripping = threading.Thread(target=drip, args=(connection,))
        begin = time.monotonic()
        dripping.start()
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        finally:
            over.set()
            dripping.join()

    assert time.monotonic() - begin < 5


def test_connections_are_bounded_and_their_places_come_free_again(monkeypatch):
    monkeypatch.setattr(health, "CONNECTIONS", 2)
    with serving() as server, ExitStack() as silent:
        holders = [
            silent.enter_context(socket.create_connection(server.address, timeout=LONG))
            for _ in range(2)
        ]
        turned_away = silent.enter_context(socket.create_connection(server.address, timeout=LONG))
        assert turned_away.recv(1) == b""

        for holder in holders:
            holder.close()
        wait_until_answered(server)


def test_a_place_comes_free_again_when_no_thread_can_be_started(monkeypatch):
    monkeypatch.setattr(health, "CONNECTIONS", 1)
    with serving() as server:
        with monkeypatch.context() as exhausted:
            exhausted.setattr(threading.Thread, "start", out_of_threads)
            with socket.create_connection(server.address, timeout=LONG) as connection:
                assert connection.recv(1) == b""
        wait_until_answered(server)


def out_of_threads(_):
    raise RuntimeError("can't start new thread")


def wait_until_answered(server):
    deadline = time.monotonic() + LONG
    while True:
        try:
            assert ask(server, "/livez")[0] == 200
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
        else:
            return


# Listening


def test_no_host_is_every_interface_in_both_families(monkeypatch):
    asked = []

    def create_server(address, **options):
        asked.append((address, options))
        return loopback()

    loopback = listening_on_loopback()
    monkeypatch.setattr(socket, "create_server", create_server)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)

    with serving(address=":9089") as server:
        assert ask(server, "/livez")[0] == 200

    assert asked == [(("::", 9089), {"family": socket.AF_INET6, "dualstack_ipv6": True})]


@pytest.mark.parametrize("dual", [True, False], ids=["switched off", "unknown to the kernel"])
def test_no_host_is_every_ipv4_interface_where_there_is_no_ipv6(monkeypatch, dual):
    asked = []

    def create_server(address, **options):
        asked.append(address)
        if options:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return loopback()

    loopback = listening_on_loopback()
    monkeypatch.setattr(socket, "create_server", create_server)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: dual)

    with serving(address=":9089") as server:
        assert ask(server, "/livez")[0] == 200

    assert asked == [("::", 9089), ("", 9089)][0 if dual else 1 :]


def listening_on_loopback():
    """Return what opens a listener on loopback, whatever becomes of `socket.create_server`."""
    create_server = socket.create_server
    return lambda: create_server(("127.0.0.1", 0))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_an_ipv6_host_stands_in_brackets():
    with serving(address="[::1]:0") as server:
        assert server.address[0] == "::1"
        assert ask(server, "/livez")[0] == 200


def test_an_address_in_use_is_a_configuration_error_that_says_so():
    with serving() as first:
        taken = f"127.0.0.1:{first.address[1]}"
        with pytest.raises(ConfigurationError) as refused:
            HealthServer(taken, status, bytes)

    assert refused.value.message == (
        f"Cannot listen on '{taken}' for probes and metrics: Address already in use."
    )
    assert "server.address" in refused.value.hint


@pytest.mark.parametrize("host", ["a..b", "a\0b", "a" * 300, "203.0.113.1"])
def test_a_host_that_is_no_name_or_not_ours_is_a_configuration_error(host):
    with pytest.raises(ConfigurationError, match="Cannot listen on"):
        HealthServer(f"{host}:0", status, bytes)


def test_a_taken_port_on_all_interfaces_is_told_too(monkeypatch):
    def create_server(*_, **__):
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket, "create_server", create_server)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)

    with pytest.raises(ConfigurationError, match="Address already in use"):
        HealthServer(":9089", status, bytes)


def test_a_closed_server_has_no_thread_and_gives_its_port_back():
    with serving() as server:
        address = "{}:{}".format(*server.address)

    assert "health" not in {thread.name for thread in threading.enumerate()}
    with serving(address=address) as again:
        assert ask(again, "/livez")[0] == 200
