"""Children that are bounded, whatever they do; and processes that are found by name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from certagent.runtime.hooks import processes
from certagent.runtime.hooks.processes import OUTPUT_BYTES, run, signal_by_name
from tests.support.process import until

LONG = 20.0  # seconds after which a test has failed
PATH = {"PATH": os.environ["PATH"]}


def shell(script, *, stdin=b"", timeout=LONG, environment=PATH, cancelled=lambda: False):
    return run(("sh", "-c", script), environment, stdin, timeout, cancelled)


def python(script, **how):
    return run((sys.executable, "-c", script), PATH, b"", how.pop("timeout", LONG), **how)


def alive(pid):
    """Whether a process runs: a zombie that somebody else has to reap does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("ascii")
    except FileNotFoundError:
        return False


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)


# How it ends


def test_a_command_s_exit_code_is_told():
    ended = shell("exit 3")

    assert (ended.code, ended.in_time) == (3, True)


def test_a_command_s_death_by_a_signal_is_told_as_a_negative_code():
    assert shell("kill -KILL $$").code == -signal.SIGKILL


def test_a_command_that_does_not_exist_cannot_be_started():
    with pytest.raises(FileNotFoundError):
        run(("/no/such/command",), PATH, b"", LONG)


def test_an_argument_that_no_process_can_have_cannot_be_started():
    with pytest.raises(ValueError, match="null"):
        run(("true", "a\0b"), PATH, b"", LONG)


def test_a_start_that_fails_leaves_no_descriptor_open():
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            run(("/no/such/command",), PATH, b"", LONG)

    assert open_descriptors() == before


def test_a_run_leaves_no_descriptor_open_and_no_zombie():
    before = open_descriptors()
    shell("true")

    assert open_descriptors() == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    assert all(alive(child) for child in children)


# What it gets


def test_a_command_reads_its_stdin_to_the_end():
    assert shell("cat", stdin=b'{"event": "published"}\n').output == b'{"event": "published"}\n'


def test_a_command_that_never_reads_its_stdin_ends_all_the_same():
    assert shell("exit 0", stdin=b"x" * 4096).code == 0


def test_an_event_that_no_pipe_can_hold_is_refused_and_nothing_blocks():
    before = open_descriptors()
    with pytest.raises(OSError, match="larger than a pipe"):
        shell("cat", stdin=b"x" * (1 << 22))

    assert open_descriptors() == before


def test_a_command_gets_the_environment_that_it_is_given_and_no_other(monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "hvs.canary")

    output = shell("env", environment={**PATH, "CERTAGENT_EVENT": "published"}).output

    assert b"CERTAGENT_EVENT=published" in output
    assert b"VAULT" not in output


def test_a_command_inherits_no_descriptor_of_ours(tmp_path):
    key = tmp_path / "ca-key.pem"
    key.touch()
    with key.open("rb"):
        listed = shell("ls -l /proc/self/fd").output

    assert b"pipe:" in listed
    assert b"ca-key.pem" not in listed


def test_a_command_blocks_no_signal_and_ignores_none_though_its_parent_does():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        status = shell("grep -E '^Sig(Blk|Ign)' /proc/self/status").output.decode()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    blocked_there, ignored_there = (int(line.split()[1], 16) for line in status.splitlines())
    assert blocked_there == 0
    # glibc keeps two signals for itself, 32 and 33, and leaves them ignored in a spawned child.
    assert ignored_there & 0x7FFFFFFF == 0


def test_a_command_leads_a_process_group_of_its_own():
    leads = "import os; print(os.getpgid(0) == os.getpid() != os.getpgid(os.getppid()))"

    assert python(leads).output == b"True\n"


# What it says


def test_stdout_and_stderr_are_read_as_one():
    assert shell("echo out; echo err >&2").output == b"out\nerr\n"


def test_of_megabytes_the_end_is_kept():
    output = shell("yes | head -c 8000000; echo the end").output

    assert len(output) == OUTPUT_BYTES
    assert output.endswith(b"y\nthe end\n")


def test_a_command_that_floods_without_end_is_killed_in_time():
    begin = time.monotonic()

    ended = shell("exec yes", timeout=0.3)

    assert not ended.in_time
    assert time.monotonic() - begin < 10
    assert len(ended.output) == OUTPUT_BYTES


def test_a_command_that_closes_its_output_is_still_waited_for():
    ended = shell("exec >&- 2>&-; sleep 0.3; exit 7")

    assert (ended.code, ended.in_time) == (7, True)


def test_output_is_not_part_of_what_is_shown_by_accident():
    assert "canary" not in repr(shell("echo canary"))


# When it takes too long


def test_a_command_that_hangs_is_asked_to_end():
    begin = time.monotonic()

    ended = shell("trap 'echo asked; exit 9' TERM; while :; do sleep 0.05; done", timeout=0.3)

    assert (ended.code, ended.in_time) == (9, False)
    assert ended.output.endswith(b"asked\n")
    assert time.monotonic() - begin >= 0.3


@pytest.mark.usefixtures("hasty")
def test_a_command_that_does_not_heed_sigterm_is_killed():
    ended = shell("trap '' TERM; while :; do sleep 0.05; done", timeout=0.2)

    assert (ended.code, ended.in_time) == (-signal.SIGKILL, False)


def test_its_children_end_with_it():
    ended = shell("sleep 60 & echo $!; wait", timeout=0.3)

    assert not ended.in_time
    until(lambda: not alive(int(ended.output)), LONG)


def test_what_it_leaves_in_the_background_ends_with_it():
    begin = time.monotonic()
    ended = shell("sleep 60 & echo $!")

    assert (ended.code, ended.in_time) == (0, True)
    assert time.monotonic() - begin < 10
    until(lambda: not alive(int(ended.output)), LONG)


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for():
    begin = time.monotonic()
    ended = shell("setsid sleep 60 & echo $!; sleep 0.2")
    os.kill(int(ended.output), signal.SIGKILL)

    assert ended.code == 0
    assert time.monotonic() - begin < 10


def test_a_command_is_ended_when_it_is_cancelled():
    begin = time.monotonic()

    ended = shell("sleep 60", cancelled=lambda: time.monotonic() - begin > 0.1)

    assert not ended.in_time
    assert time.monotonic() - begin < 10


def test_commands_run_beside_one_another_and_get_their_own_exit_codes():
    codes = {}

    def one(number):
        codes[number] = shell(f"sleep 0.1; exit {number}").code

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    assert codes == {number: number for number in range(8)}


def test_as_pid_1_it_reaps_the_orphans_of_its_commands():
    unshare = shutil.which("unshare")
    command = [unshare or "", "--pid", "--fork", "--mount-proc"]
    possible = unshare and subprocess.run([*command, "true"], check=False, capture_output=True)
    if not possible or possible.returncode:
        pytest.skip("making a PID namespace is not permitted here")
    script = (
        "import os\n"
        "from certagent.runtime.hooks.processes import run\n"
        "run(('sh', '-c', 'sh -c \"sleep 60 & sleep 60\" & sleep 0.2'), os.environ, b'', 20)\n"
        "print(*sorted(name for name in os.listdir('/proc') if name.isdigit()))\n"
    )
    done = subprocess.run(
        [*command, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=LONG,
        check=True,
    )

    assert done.stdout == b"1\n"


# Signals by name


@contextmanager
def sleeper(program, *arguments, executable=None):
    process = subprocess.Popen([str(program), *arguments], executable=executable)
    try:
        # Between fork and exec it still has our own name.
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().endswith(b"60\0"), LONG)
        yield process
    finally:
        process.kill()
        process.wait(LONG)


@pytest.fixture
def program(tmp_path):
    """A program with a name that no other process has."""
    copy = tmp_path / f"reader{os.getpid()}"
    shutil.copy(shutil.which("sleep"), copy)
    return copy


def test_a_process_is_found_by_the_kernel_s_name_for_it(program):
    with sleeper("another name", "60", executable=program) as process:
        assert signal_by_name(program.name, signal.SIGTERM) == 1
        assert process.wait(LONG) == -signal.SIGTERM


def test_a_process_is_found_by_the_file_name_of_its_first_argument(tmp_path):
    name = f"a-name-longer-than-the-kernel-keeps-{os.getpid()}"
    with sleeper(tmp_path / name, "60", executable=shutil.which("sleep")) as process:
        assert signal_by_name(name, signal.SIGHUP) == 1
        assert process.wait(LONG) == -signal.SIGHUP


def test_a_part_of_a_name_is_not_the_name(program):
    with sleeper(program, "60"), pytest.raises(ProcessLookupError):
        signal_by_name(program.name[:-1], signal.SIGTERM)


def test_all_processes_of_a_name_are_signalled(program):
    with sleeper(program, "60") as one, sleeper(program, "60") as other:
        assert signal_by_name(program.name, signal.SIGTERM) == 2
        assert {one.wait(LONG), other.wait(LONG)} == {-signal.SIGTERM}


def test_nobody_signals_themselves(monkeypatch):
    ours = Path("/proc/self/cmdline").read_bytes().partition(b"\0")[0].rpartition(b"/")[2].decode()
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, _: sent.append(pid))
    with suppress(ProcessLookupError):
        signal_by_name(ours, signal.SIGTERM)

    assert os.getpid() not in sent


def test_a_zombie_is_no_process_of_that_name(program):
    with sleeper(program, "60") as process:
        process.kill()
        until(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text("ascii"), LONG)

        with pytest.raises(ProcessLookupError, match=program.name):
            signal_by_name(program.name, signal.SIGTERM)


def test_a_process_that_ends_meanwhile_is_none(program, monkeypatch):
    def gone(*_):
        raise ProcessLookupError

    with sleeper(program, "60"):
        monkeypatch.setattr(os, "kill", gone)
        with pytest.raises(ProcessLookupError, match=program.name):
            signal_by_name(program.name, signal.SIGTERM)
        monkeypatch.undo()


def test_one_that_may_not_be_signalled_is_told_after_the_others_got_theirs(program, monkeypatch):
    kill = os.kill
    with sleeper(program, "60") as one, sleeper(program, "60") as other:
        refused = min(one.pid, other.pid)

        def refusing(pid, number):
            if pid == refused:
                raise PermissionError(1, "Operation not permitted")
            kill(pid, number)

        monkeypatch.setattr(os, "kill", refusing)
        with pytest.raises(PermissionError):
            signal_by_name(program.name, signal.SIGTERM)
        monkeypatch.undo()

        assert max(one, other, key=lambda each: each.pid).wait(LONG) == -signal.SIGTERM


def test_entries_that_are_hidden_or_have_ended_are_passed_over(monkeypatch):
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listed(path), "999999999"])

    with pytest.raises(ProcessLookupError):
        signal_by_name("no-process-has-this-name", signal.SIGTERM)
