"""One attempt of each kind of hook, on real commands, processes and servers."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from certagent.runtime.concealment import CONCEALED, conceal
from certagent.runtime.hooks import Exec, Http, Signal, processes
from certagent.runtime.hooks.actions import HookFailed, last_lines, perform
from tests.support.events import EVENT
from tests.support.process import until

LONG = 20.0  # seconds after which a test has failed


def never():
    return False


def tell(action, cancelled=never):
    perform(action, EVENT, cancelled)


def failure(action, cancelled=never):
    with pytest.raises(HookFailed) as failed:
        tell(action, cancelled)
    return failed.value


def shell(script, timeout=LONG):
    return Exec(("sh", "-c", script), timeout)


# exec


def test_a_command_is_told_the_event_on_stdin_and_in_variables(tmp_path):
    tell(shell(f"cat > {tmp_path}/stdin; env > {tmp_path}/environment"))

    assert json.loads((tmp_path / "stdin").read_bytes())["version"] == "5"
    assert "CERTAGENT_VERSION=5\n" in (tmp_path / "environment").read_text()


def test_a_command_sees_nothing_else_of_our_environment(tmp_path, monkeypatch):
    for name in ("VAULT_TOKEN", "AZURE_CLIENT_SECRET", "CERTAGENT_VAULT_ROLE", "ANYTHING"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LANG", raising=False)

    tell(Exec(("sh", "-c", f"tr '\\0' '\\n' < /proc/$$/environ > {tmp_path}/environment")))

    told = (tmp_path / "environment").read_text()
    assert "canary" not in told
    names = {line.partition("=")[0] for line in told.splitlines()}
    assert names == {"PATH", "HOME", *EVENT.variables()}


def test_a_command_is_not_given_to_a_shell(tmp_path):
    tell(Exec(("touch", f"{tmp_path}/$(id -u); echo")))

    assert (tmp_path / "$(id -u); echo").exists()


def test_a_command_that_fails_is_told_with_its_code_and_last_lines():
    failed = failure(shell("echo one; echo the reason >&2; exit 4"))

    assert str(failed) == "sh ended with 4"
    assert failed.outcome == "failed"
    assert failed.output == ("one", "the reason")


def test_a_command_that_hangs_is_a_timeout():
    failed = failure(shell("sleep 60", timeout=0.2))

    assert str(failed) == "sh was killed after 0.2 s"
    assert failed.outcome == "timeout"


def test_a_command_that_is_ended_with_the_agent_is_cancelled():
    assert failure(shell("sleep 60"), cancelled=lambda: True).outcome == "cancelled"


def test_a_command_that_is_not_there_is_named():
    failed = failure(Exec(("/no/such/command",)))

    assert str(failed) == "/no/such/command cannot be started: No such file or directory"
    assert "image" in failed.hint


def test_a_command_that_nobody_can_start_is_told_without_its_arguments():
    failed = failure(Exec(("true", "canary\0")))

    assert str(failed) == "true cannot be started: embedded null byte"


# What of its output is told


def test_a_secret_that_a_command_prints_is_concealed():
    conceal("s.a-secret-of-this-test")

    assert last_lines(b"token s.a-secret-of-this-test\n") == (f"token {CONCEALED}",)


def test_a_private_key_that_a_command_prints_is_concealed_as_a_whole():
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----\n"

    assert last_lines(b"before\n" + key + b"after\n") == ("before", CONCEALED, "after")


def test_the_end_of_a_private_key_whose_beginning_was_cut_off_is_not_told():
    assert last_lines(b"BBBB\nCCCC\n-----END EC PRIVATE KEY-----\nafter\n") == ("after",)


def test_a_private_key_that_was_cut_off_at_its_end_is_not_told():
    assert last_lines(b"before\n-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB") == ("before", CONCEALED)


def test_few_and_short_lines_are_told_and_blank_ones_are_not():
    output = b"".join(b"line %d\n\n" % number for number in range(100)) + b"x" * 10_000

    lines = last_lines(output)

    assert lines[:-1] == ("line 96", "line 97", "line 98", "line 99")
    assert lines[-1] == "x" * 400


def test_bytes_that_are_no_text_are_told_as_escapes():
    assert last_lines(b"\xff\xfe") == ("\\xff\\xfe",)


# signal


@pytest.fixture
def program(tmp_path):
    copy = tmp_path / f"reader{os.getpid()}"
    shutil.copy(shutil.which("sleep"), copy)
    return copy


def test_a_process_gets_its_signal(program):
    process = subprocess.Popen([program, "60"])
    try:
        until(lambda: b"60" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        tell(Signal(program.name, signal.SIGUSR1))

        assert process.wait(LONG) == -signal.SIGUSR1
    finally:
        process.kill()
        process.wait(LONG)


def test_a_process_that_is_not_there_is_told_with_the_likely_cause():
    failed = failure(Signal("no-such-process", signal.SIGHUP))

    assert str(failed) == "SIGHUP to 'no-such-process': no such process"
    assert "shareProcessNamespace" in failed.hint


def test_a_process_of_somebody_else_is_told_with_the_likely_cause(monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(processes, "signal_by_name", refused)
    failed = failure(Signal("envoy", signal.SIGHUP))

    assert str(failed) == "SIGHUP to 'envoy': Operation not permitted"
    assert "same user" in failed.hint


# http


class Receiver:
    """An HTTP server that keeps what it is sent."""

    def __init__(self, status=204, context=None):
        self.requests = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            do_PUT = do_POST  # noqa: N815 - as http.server calls it

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join(LONG)
        self.server.server_close()


def test_an_url_gets_the_event_as_json():
    with Receiver() as receiver:
        tell(Http(f"http://127.0.0.1:{receiver.port}/reload?who=certagent"))

    [(method, target, headers, body)] = receiver.requests
    assert (method, target) == ("POST", "/reload?who=certagent")
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert body == EVENT.body()


def test_an_url_without_a_path_gets_the_root_by_the_method_asked_for():
    with Receiver(status=200) as receiver:
        tell(Http(f"http://127.0.0.1:{receiver.port}", method="PUT"))

    assert receiver.requests[0][:2] == ("PUT", "/")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_is_not_2xx_is_a_failure_and_not_followed(status):
    with Receiver(status=status) as receiver:
        failed = failure(Http(f"http://127.0.0.1:{receiver.port}/a?key=canary"))

    assert str(failed) == f"POST http://127.0.0.1:{receiver.port} answered {status}"
    assert len(receiver.requests) == 1


def test_a_server_whose_certificate_verifies_gets_the_event(tls):
    with Receiver(context=tls.server_context()) as receiver:
        tell(Http(f"https://localhost:{receiver.port}/", ca_file=str(tls.ca_file)))

    assert len(receiver.requests) == 1


def test_a_server_whose_certificate_does_not_verify_gets_nothing(tls):
    with Receiver(context=tls.server_context()) as receiver:
        failed = failure(Http(f"https://localhost:{receiver.port}/"))

    assert "certificate verify failed" in str(failed)
    assert not receiver.requests


def test_a_ca_file_that_is_not_there_is_named():
    failed = failure(Http("https://localhost:1/", ca_file="/no/ca.pem"))

    assert "/no/ca.pem: No such file or directory" in str(failed)


@contextmanager
def answering(answer):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(LONG)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(LONG)


def in_time(port, scheme="http"):
    """Tell a server with a timeout, and return the failure; one that comes too late fails."""
    begin = time.monotonic()
    failed = failure(Http(f"{scheme}://127.0.0.1:{port}/", timeout=0.3))
    assert time.monotonic() - begin < 10
    return failed


def test_a_server_that_never_answers_is_a_timeout():
    over = threading.Event()
    with answering(lambda _: over.wait(LONG)) as port:
        failed = in_time(port)
        over.set()

    assert failed.outcome == "timeout"
    assert str(failed) == f"POST http://127.0.0.1:{port}: no answer in 0.3 s"


def dripping(over, first=b""):
    def drip(connection):
        connection.sendall(first)
        while not over.wait(0.05):
            connection.sendall(b"H")

    return drip


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 2"])
def test_a_server_that_drips_is_a_timeout(first):
    over = threading.Event()
    with answering(dripping(over, first)) as port:
        failed = in_time(port)
        over.set()

    assert failed.outcome == "timeout"


def test_a_handshake_that_drips_is_a_timeout():
    over = threading.Event()
    with answering(dripping(over, b"\x16\x03\x03\x3f\xff\x02")) as port:
        failed = in_time(port, "https")
        over.set()

    assert failed.outcome == "timeout"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP/1"),
        (b"x" * 10_000, "the answer is not HTTP/1"),
        (b"", "closed before the answer"),
        (b"HTTP/1.1 2", "closed before the answer"),
    ],
)
def test_what_does_not_speak_http_is_told(sent, reason):
    def answer(connection):
        connection.recv(65536)
        connection.sendall(sent)

    with answering(answer) as port:
        assert reason in str(failure(Http(f"http://127.0.0.1:{port}/")))


def test_an_answer_counts_as_soon_as_its_status_is_known():
    over = threading.Event()

    def answer(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        over.wait(LONG)

    with answering(answer) as port:
        tell(Http(f"http://127.0.0.1:{port}/"))
        over.set()


def test_nobody_there_is_told_as_the_kernel_does():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        failed = failure(Http(f"http://127.0.0.1:{held.getsockname()[1]}/"))

    assert re.search(r"Connection refused$", str(failed))
    assert failed.outcome == "failed"


def test_a_deadline_that_passed_between_two_reads_is_a_timeout():
    from certagent.runtime.hooks import webhook  # noqa: PLC0415 - the one look inside

    with pytest.raises(TimeoutError):
        webhook._left(time.monotonic())


def test_old_versions_of_tls_are_not_spoken(tls):
    context = tls.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with answering(lambda connection: context.wrap_socket(connection, server_side=True)) as port:
        failed = failure(Http(f"https://localhost:{port}/", ca_file=str(tls.ca_file)))

    assert "PROTOCOL" in str(failed)
