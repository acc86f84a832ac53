"""The lines of the log: one a record, readable, unforgeable, and without secrets."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import textwrap
import threading
import warnings
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certagent.errors import (
    AccessDenied,
    CertagentError,
    ConfigurationError,
    MaterialRefused,
    SourceUnavailable,
)
from certagent.material.finding import Finding, Severity
from certagent.runtime import concealment, logs
from certagent.runtime.logs import fields

log = logging.getLogger("certagent.tests")
CANARY = "canary-s3cr3t-value"
FINDINGS = (
    Finding("key-mismatch", Severity.ERROR, "private_key", "The key is not its.", "Store its own."),
    Finding("part-empty", Severity.ERROR, "chain", "The chain is empty.", "Store the chain."),
)


class Stream(StringIO):
    """Counts the writes, for a line must be one."""

    def __init__(self):
        super().__init__()
        self.writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)

    @property
    def lines(self):
        return self.getvalue().splitlines()

    @property
    def line(self):
        (line,) = self.lines
        return line

    @property
    def event(self):
        return json.loads(self.line)


@pytest.fixture(autouse=True)
def the_process_as_it_was(monkeypatch):
    """Give back what `configure` takes for the whole process."""
    for module, name in (
        (warnings, "showwarning"),
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (concealment, "_secrets"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    root, ours = logging.getLogger(), logging.getLogger("certagent")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def text(stream):
    logs.configure("text", stream=stream)
    return stream


@pytest.fixture
def jsonl(stream):
    logs.configure("json", stream=stream)
    return stream


@pytest.fixture(params=["text", "json"])
def either(request, stream):
    logs.configure(request.param, "debug", stream=stream)
    return stream


def raised(error):
    """Return `error` with a traceback."""

    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    return caught.value


def after_the_time(line):
    moment, _, rest = line.partition(" ")
    assert datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")
    assert len(moment) == len("2026-11-21T22:54:54.123Z")
    assert moment.endswith("Z")
    return rest


# Text


def test_a_line_of_text_has_time_level_message_and_fields(text):
    log.info("published", extra=fields(bundle="istiod-ca", subject="CN=a b", version=5))

    assert after_the_time(text.line) == (
        'INFO  published bundle=istiod-ca subject="CN=a b" version=5'
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain-1.2:3/4", "plain-1.2:3/4"),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "so"', r'"say \"so\""'),
        ("back\\slash", r'"back\\slash"'),
        (True, "true"),
        (None, "none"),
        (1.5, "1.5"),
        (math.inf, "inf"),
        (["a", "b"], "a,b"),
        (frozenset({"a"}), "a"),
        (Severity.ERROR, "error"),
        (datetime(2026, 11, 21, 22, tzinfo=UTC), "2026-11-21T22:00:00Z"),
        (datetime(2026, 11, 21, 22, tzinfo=timezone(timedelta(hours=2))), "2026-11-21T20:00:00Z"),
    ],
)
def test_a_value_is_quoted_where_it_must_be(text, value, shown):
    log.info("m", extra=fields(key=value))

    assert after_the_time(text.line) == f"INFO  m key={shown}"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b[31m", "\x00", "\x85", "\u2028", "\u202e"])
def test_what_a_server_says_cannot_forge_a_line(text, control):
    forged = f"x{control}2026-11-21T22:54:54.123Z ERROR forged"

    log.info("%s", forged, extra=fields(answer=forged))

    assert control not in text.line
    assert text.writes == 1


@given(st.text(), st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_record_is_one_printable_line_and_one_write(message, value):
    stream = Stream()
    logs.configure("text", stream=stream)

    log.info("%s", message, extra=fields(value=value))

    assert stream.line.isprintable()
    assert stream.writes == 1


def test_a_library_is_named(text):
    logging.getLogger("urllib3.connectionpool").warning("retrying")

    assert after_the_time(text.line) == "WARNING retrying logger=urllib3.connectionpool"


def test_an_expected_error_is_explained_in_the_line(text):
    error = SourceUnavailable("Vault does not answer.", hint="Is it sealed?")

    log.warning("the last good set stays", exc_info=error, extra=fields(bundle="a"))

    assert after_the_time(text.line) == (
        "WARNING the last good set stays bundle=a error=SourceUnavailable"
        ' reason="Vault does not answer." hint="Is it sealed?"'
    )


def test_of_findings_the_line_shows_the_codes(text):
    log.warning("refused", exc_info=MaterialRefused("Version 5 is refused.", FINDINGS))

    assert text.line.endswith("findings=key-mismatch,part-empty")


def test_a_bug_shows_its_traceback_indented_so_that_it_forges_no_line(text):
    forged = "boo\n2026-11-21T22:54:54.123Z ERROR forged"

    log.error("a bug", exc_info=raised(TypeError(forged)))

    first, *trace = text.lines
    assert "ERROR a bug error=TypeError" in first
    assert trace[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in trace)
    assert text.writes == 1


# JSON


def test_a_line_of_json_is_one_object(jsonl):
    log.info("published", extra=fields(bundle="a", version=5, roots=("x", "y"), last=None))

    event = jsonl.event
    after_the_time(event.pop("time"))
    assert event == {
        "level": "info",
        "logger": "certagent.tests",
        "message": "published",
        "bundle": "a",
        "version": 5,
        "roots": ["x", "y"],
        "last": None,
    }


def test_a_field_does_not_take_the_place_of_the_head(jsonl):
    log.info("true", extra=fields(message="false", level="none", time="never"))

    assert jsonl.event["message"] == "true"
    assert jsonl.event["level"] == "info"


@given(st.text(), st.text() | st.floats() | st.integers() | st.dictionaries(st.text(), st.text()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_record_is_one_ascii_line_of_strict_json(message, value):
    stream = Stream()
    logs.configure("json", stream=stream)

    log.info("%s", message, extra=fields(value=value))

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(stream.line, parse_constant=refuse)["message"] == message
    assert stream.line.isascii()
    assert stream.writes == 1


def test_findings_are_objects(jsonl):
    log.warning(
        "refused", exc_info=MaterialRefused("Version 5 is refused.", FINDINGS, hint="Push.")
    )

    event = jsonl.event
    assert event["error"] == "MaterialRefused"
    assert event["reason"] == "Version 5 is refused."
    assert event["hint"] == "Push."
    assert [finding["code"] for finding in event["findings"]] == ["key-mismatch", "part-empty"]
    assert event["findings"][0]["severity"] == "error"
    assert "traceback" not in event


def test_a_bug_s_traceback_is_one_value(jsonl):
    log.error("a bug", exc_info=raised(TypeError("boo")))

    assert jsonl.event["traceback"].startswith("Traceback (most recent call last):\n")


# What is heard


def test_a_library_is_silent_below_warning(text):
    for name in ("urllib3", "hvac", "azure", "msal", "requests"):
        logging.getLogger(name).info("chatter")

    assert text.getvalue() == ""


def test_debug_lets_libraries_talk(stream):
    logs.configure(level="debug", stream=stream)
    logging.getLogger("urllib3").debug("GET /v1/x")

    assert "GET /v1/x" in stream.line


def test_level_error_silences_warnings_of_all(stream):
    logs.configure(level="error", stream=stream)
    log.warning("ours")
    logging.getLogger("urllib3").warning("theirs")

    assert stream.getvalue() == ""


def test_a_second_configuration_replaces_the_first(stream):
    first = Stream()
    logs.configure(stream=first)
    logs.configure(stream=stream)
    log.info("once")

    assert first.getvalue() == ""
    assert len(stream.lines) == 1


def test_handlers_of_others_are_left_alone(stream):
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)

    logs.configure(stream=stream)

    assert foreign in logging.getLogger().handlers


def test_stderr_is_the_default(capsys):
    logs.configure()
    log.info("here")

    captured = capsys.readouterr()
    assert "here" in captured.err
    assert captured.out == ""


def test_python_s_warnings_are_records(jsonl):
    warnings.showwarning("old\nways", DeprecationWarning, "x.py", 3)

    event = jsonl.event
    assert (event["level"], event["message"]) == ("warning", "old\nways")
    assert (event["category"], event["file"], event["line"]) == ("DeprecationWarning", "x.py", 3)


def test_a_thread_that_ends_by_an_exception_is_a_record(jsonl):
    def fail():
        raise ValueError("boo")

    thread = threading.Thread(target=fail, name="watcher")
    thread.start()
    thread.join()

    assert jsonl.event["message"] == "a thread ended"
    assert (jsonl.event["thread"], jsonl.event["reason"]) == ("watcher", "boo")


def test_a_thread_that_exits_is_none(jsonl):
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()

    assert jsonl.getvalue() == ""


def test_an_exception_in_a_finalizer_is_a_record(jsonl):
    class Careless:
        def __del__(self):
            raise ValueError("boo")

    careless = Careless()
    del careless

    assert jsonl.event["reason"] == "boo"
    assert jsonl.event["level"] == "error"


def test_an_exception_that_nobody_catches_is_fatal(jsonl):
    error = ValueError("boo")

    sys.excepthook(ValueError, error, None)

    assert (jsonl.event["level"], jsonl.event["reason"]) == ("critical", "boo")


def test_an_interrupt_at_the_keyboard_needs_no_words(either):
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)

    assert either.getvalue() == ""


# What never ends the agent


@pytest.mark.parametrize(("message", "argument"), [("%d", "x"), ("%s %s", "x")])
def test_a_record_that_cannot_be_rendered_is_told_and_raises_nothing(
    either, monkeypatch, message, argument
):
    # pytest's own handlers do raise then.
    root = logging.getLogger()
    ours = [known for known in root.handlers if getattr(known, "stream", None) is either]
    with monkeypatch.context() as alone:
        alone.setattr(root, "handlers", ours)
        log.info(message, argument)

    assert "a log record cannot be written" in either.line
    assert "test_logs.py" in either.line


def test_a_value_that_cannot_be_shown_raises_nothing(either):
    class Hostile:
        def __str__(self):
            raise RuntimeError

    log.info("m", extra=fields(value=Hostile()))

    assert "a log record cannot be written" in either.line


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left"), ValueError()])
def test_a_stream_that_cannot_be_written_raises_nothing(capsys, error):
    class Broken(StringIO):
        def write(self, _):
            raise error

    logs.configure(stream=Broken())

    log.info("m")
    logs.fatal(ValueError("boo"))

    assert capsys.readouterr() == ("", "")


# Secrets


def test_a_secret_never_gets_out(either):
    logs.conceal(CANARY)

    log.info("message %s", CANARY, extra=fields(value=CANARY, deep={"k": [CANARY.encode()]}))
    log.debug("in the format " + CANARY, extra=fields(**{CANARY: 1}))  # noqa: G003 - so some do
    error = raised(ValueError(CANARY))
    error.__cause__ = raised(OSError(CANARY))
    log.error("exception", exc_info=error)
    log.warning("expected", exc_info=AccessDenied(CANARY, hint=CANARY))
    finding = Finding("c", Severity.ERROR, "p", CANARY, CANARY, subject=CANARY)
    logs.fatal(MaterialRefused(CANARY, (finding,), hint=CANARY))
    logs.fatal(ConfigurationError(CANARY, (CANARY,)))
    logs.fatal(RuntimeError(CANARY))
    warnings.showwarning(CANARY, UserWarning, "x.py", 3)

    assert CANARY not in either.getvalue()
    assert either.getvalue().count("[concealed]") > 10


def test_debug_logs_of_a_real_request_show_no_token(either):
    import requests  # noqa: PLC0415 - the agent's client, with all its loggers

    logs.conceal(CANARY)
    with Echo() as url:
        requests.get(f"{url}/v1/{CANARY}?t={CANARY}", headers={"X-Vault-Token": CANARY}, timeout=5)

    assert "GET /v1/[concealed]" in either.getvalue()
    assert CANARY not in either.getvalue()


class Echo:
    """A server on loopback that answers anything with 200 and nothing."""

    def __enter__(self):
        from http.server import BaseHTTPRequestHandler, HTTPServer  # noqa: PLC0415 - here alone

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


# Fatal errors


def test_a_fatal_error_is_written_for_people(text):
    logs.fatal(AccessDenied("Vault refused the login.", hint="The role must bind it.\nOr 403."))

    assert text.lines == [
        "certagent: Vault refused the login.",
        "  The role must bind it.",
        "  Or 403.",
    ]
    assert text.writes == 1


def test_findings_are_written_one_by_one_with_what_to_do(text):
    logs.fatal(MaterialRefused("Version 5 is refused.", FINDINGS, hint="Store its own."))

    assert text.lines == [
        "certagent: Version 5 is refused.",
        "  key-mismatch: The key is not its.",
        "  part-empty: The chain is empty.",
        "    Store the chain.",
        "  Store its own.",
    ]


def test_faults_are_written_one_by_one(text):
    logs.fatal(
        ConfigurationError("Two faults:", ("a.b: unknown", "c: missing"), hint="See schema.")
    )

    assert text.lines == [
        "certagent: Two faults:",
        "  a.b: unknown",
        "  c: missing",
        "  See schema.",
    ]


def test_a_fatal_error_cannot_forge_a_line(text):
    logs.fatal(CertagentError("one\ncertagent: forged\x1b[0m"))

    assert text.lines == ["certagent: one", "  certagent: forged\\x1b[0m"]


def test_an_error_without_a_message_is_written_too(text):
    logs.fatal(CertagentError(""))

    assert text.line == "certagent: "


def test_a_fatal_bug_shows_its_traceback(text):
    logs.fatal(raised(TypeError("boo")))

    assert text.lines[0] == "certagent: This is a bug in certagent."
    assert text.lines[1] == "  Report it with its traceback."
    assert text.lines[-1] == "  TypeError: boo"


def test_a_fatal_error_is_one_object_in_json(jsonl):
    logs.fatal(MaterialRefused("Version 5 is refused.", FINDINGS, hint="Store its own."))

    event = jsonl.event
    assert event["level"] == "critical"
    assert event["message"] == "Version 5 is refused."
    assert event["hint"] == "Store its own."
    assert event["code"] == 65
    assert [finding["code"] for finding in event["findings"]] == ["key-mismatch", "part-empty"]
    assert jsonl.writes == 1


def test_faults_are_listed_in_json(jsonl):
    logs.fatal(ConfigurationError("Two faults:", ("a.b: unknown", "c: missing")))

    assert (jsonl.event["code"], jsonl.event["faults"]) == (78, ["a.b: unknown", "c: missing"])


def test_a_fatal_bug_is_one_object_with_code_70(jsonl):
    logs.fatal(TypeError("boo"))

    event = jsonl.event
    assert (event["code"], event["error"], event["reason"]) == (70, "TypeError", "boo")


def test_a_fatal_error_is_written_at_any_level(stream):
    logs.configure(level="error", stream=stream)
    logging.disable(logging.CRITICAL)
    try:
        logs.fatal(CertagentError("the end"))
    finally:
        logging.disable(logging.NOTSET)

    assert stream.line == "certagent: the end"


def test_a_fatal_error_before_the_configuration_is_text_on_stderr(capsys):
    logs.fatal(ConfigurationError("The configuration is no YAML."))

    assert capsys.readouterr() == ("", "certagent: The configuration is no YAML.\n")


SCRIPT = textwrap.dedent(
    """
    import logging, threading, warnings
    from certagent.runtime import logs

    logs.configure("json", "debug")
    warnings.warn("careful")
    logging.getLogger("elsewhere").warning("a\\nb")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    raise RuntimeError("nobody catches this")
    """
)


def test_every_line_of_a_process_is_an_object_to_the_last_exception():
    process = subprocess.run(
        [sys.executable, "-W", "default", "-c", SCRIPT],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )

    events = [json.loads(line) for line in process.stderr.splitlines()]
    told = [event["message"] for event in events]
    assert told == ["careful", "a\nb", "a thread ended", "This is a bug in certagent."]
    assert events[-1]["reason"] == "nobody catches this"
    assert process.stdout == ""


def test_fields_without_a_value_are_left_out():
    assert fields(bundle="a", subject="", failures=0) == {"fields": {"bundle": "a", "failures": 0}}
