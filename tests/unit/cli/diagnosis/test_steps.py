"""Results: what they say, and that no check hides what another has to say."""

from __future__ import annotations

import pytest

from certagent.cli.diagnosis.result import About, Verdict, attempt
from certagent.cli.diagnosis.steps import Steps, in_turn
from certagent.errors import AccessDenied
from certagent.material.finding import Finding, Severity
from tests.support.diagnosis import Report

ABOUT = About("check", "ca")


def usable(generator) -> bool:
    """Exhaust `attempt`, and return what it returns."""
    try:
        while True:
            next(generator)
    except StopIteration as stop:
        return stop.value


def raises(error):
    yield ABOUT.ok("so far")
    raise error


def test_an_error_is_a_failure_with_its_code_and_its_hint_as_the_fix():
    report = Report(attempt(ABOUT, raises(AccessDenied("no", hint="ask\nfor it"))))

    assert report.verdicts("check") == ["ok", "failure"]
    failure = report.the("check", "failure")
    assert (failure.message, failure.fix, failure.exit_code) == ("no", "ask for it", 77)
    assert failure.bundle == "ca"


def test_a_bug_in_a_check_is_its_failure_alone_and_quotes_nothing(caplog):
    report = Report(attempt(ABOUT, raises(KeyError("hvs.a-secret"))))

    failure = report.the("check", "failure")
    assert failure.exit_code == 70
    assert "KeyError" in failure.message
    assert "a-secret" not in failure.message + failure.fix
    assert "could not be completed" in caplog.text


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (ABOUT.ok(""), True),
        (ABOUT.warning("", ""), True),
        (ABOUT.skipped(""), False),
        (ABOUT.failure(AccessDenied("")), False),
    ],
)
def test_what_can_be_used_has_no_failure_and_was_not_skipped(result, wanted):
    assert usable(attempt(ABOUT, [ABOUT.ok(""), result, ABOUT.ok("")])) is wanted


def test_findings_are_failures_and_warnings_with_their_hints():
    error = Finding("key-mismatch", Severity.ERROR, "private_key", "It is another's.", "Pair them.")
    warning = Finding("expires-soon", Severity.WARNING, "roots", "Soon.", "Replace it.")

    first, second = ABOUT.findings([error, warning], "version 5: ")

    assert first.message == "version 5: key-mismatch (private_key): It is another's."
    assert (first.verdict, first.exit_code, first.fix) == (Verdict.FAILURE, 65, "Pair them.")
    assert (second.verdict, second.exit_code) == (Verdict.WARNING, 0)


class TestSteps:
    @staticmethod
    def steps(credential="ok", server="ok", login="ok"):
        def check(name, verdict):
            if verdict == "failure":
                raise AccessDenied(name)
            yield getattr(About(name), verdict)(name)

        return Steps(
            check("credential", credential),
            check("server", server),
            check("login", login),
            {"a": attempt(About("read", "a"), check("read", "ok"))},
        )

    def test_all_are_asked_where_all_is_well(self):
        report = Report(in_turn(self.steps()))

        assert [each.name for each in report.results] == ["credential", "server", "login", "read"]

    @pytest.mark.parametrize(("broken", "missing"), [("credential", "credential"), ("server",) * 2])
    def test_without_a_credential_or_a_server_there_is_no_login(self, broken, missing):
        report = Report(in_turn(self.steps(**{broken: "failure"})))

        assert report.failures == [(broken, 77)]
        assert report.verdicts("login") == report.verdicts("read") == ["skipped"]
        assert missing in report.the("login").message

    @pytest.mark.parametrize("login", ["failure", "skipped"])
    def test_without_a_login_nothing_is_read_and_every_bundle_says_so(self, login):
        report = Report(in_turn(self.steps(login=login)))

        assert report.verdicts("read") == ["skipped"]
        assert report.the("read").bundle == "a"
