"""Hooks in a process that blocks its signals, as the agent does: what they see, and its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import environment, until

pytestmark = pytest.mark.measured

LONG = 20.0  # seconds after which a test has failed

AGENT = textwrap.dedent(
    """
    import os, sys
    from certagent.runtime import logs
    from certagent.runtime.hardening import harden
    from certagent.runtime.hooks import Exec, Hook, Signal
    from certagent.runtime.hooks.runner import HookRunner, backoff
    from certagent.runtime.signals import Signals, Wake
    from tests.support.events import EVENT

    logs.configure("json", "info")
    harden()
    *argv, turns = sys.argv[1:]
    action = Signal(argv[1]) if argv[0] == "signal" else Exec(tuple(argv))
    hook = Hook("istiod-ca", "tell", action)
    with Signals() as signals:
        runner = HookRunner([hook], lambda failures: backoff(failures, 0.0))
        runner.submit(EVENT)
        while signals.wait(0.01) is not Wake.STOP:
            open(turns, "a").write(".")
        runner.close()
    """
)


@contextmanager
def agent(tmp_path, *argv, before=(), **environ):
    """Run a loop with one hook; `tmp_path/turns` grows while it turns."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", AGENT, *map(str, argv), str(tmp_path / "turns")],
        env=environment(environ),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LONG)
        process.stdout.close()


def stopped(process):
    """Stop the loop; return its exit code, the seconds that it took, and its log."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(LONG)
    lines = process.stdout.read().splitlines()
    return code, time.monotonic() - begin, [json.loads(line) for line in lines]


def turns(tmp_path):
    path = tmp_path / "turns"
    return path.stat().st_size if path.exists() else 0


def test_a_loop_turns_and_stops_in_time_while_a_hook_hangs(tmp_path):
    script = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    with agent(tmp_path, "sh", "-c", script) as process:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), LONG)
        before = turns(tmp_path)
        until(lambda: turns(tmp_path) > before + 10, LONG)

        code, seconds, log = stopped(process)

    assert code == 0
    assert seconds < 5
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert log[-1]["message"] == "the agent ends before a hook was told"


def test_a_loop_stops_in_time_though_a_hook_does_not_heed_sigterm(tmp_path):
    script = f"trap '' TERM; echo > {tmp_path}/up; while :; do sleep 0.1; done"
    with agent(tmp_path, "sh", "-c", script) as process:
        until((tmp_path / "up").exists, LONG)

        code, seconds, _ = stopped(process)

    assert code == 0
    assert seconds < 8


def test_a_loop_turns_while_a_hook_floods(tmp_path):
    with agent(tmp_path, "sh", "-c", f"echo > {tmp_path}/up; exec yes") as process:
        until((tmp_path / "up").exists, LONG)
        before = turns(tmp_path)
        until(lambda: turns(tmp_path) > before + 50, LONG)

        assert stopped(process)[0] == 0


def test_a_command_of_an_agent_can_be_stopped_by_sigterm_and_sees_no_token(tmp_path):
    script = (
        f"cat /proc/self/status > {tmp_path}/status; env > {tmp_path}/env; echo > {tmp_path}/up"
    )
    with agent(tmp_path, "sh", "-c", script, VAULT_TOKEN="hvs.canary-of-this-test") as process:
        until((tmp_path / "up").exists, LONG)
        _, _, log = stopped(process)

    assert "SigBlk:\t0000000000000000\n" in (tmp_path / "status").read_text()
    assert "canary" not in (tmp_path / "env").read_text()
    assert [record["message"] for record in log] == ["hook done"]


def test_a_key_that_a_failing_command_prints_is_not_in_the_log(tmp_path):
    key = r"-----BEGIN PRIVATE KEY-----\nMIGHcanary\n-----END PRIVATE KEY-----\n\033[2J"
    with agent(tmp_path, "sh", "-c", f"printf -- '{key}'; exit 1") as process:
        line = until(process.stdout.readline, LONG)
        _, _, log = stopped(process)

    shown = line + json.dumps(log)
    assert "canary" not in shown
    assert "[concealed]" in shown


def unshared():
    """The command that makes a PID namespace, or nothing where that is not permitted."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "--pid", "--fork", "--mount-proc", "--kill-child"]
    possible = unshare and subprocess.run([*command, "true"], check=False, capture_output=True)
    return command if possible and possible.returncode == 0 else []


def test_a_process_of_another_container_is_signalled_in_a_shared_pid_namespace(tmp_path):
    before = unshared()
    if not before:
        pytest.skip("making a PID namespace is not permitted here")
    reader = tmp_path / f"reader{os.getpid()}"
    shutil.copy(shutil.which("dash") or "/bin/sh", reader)
    # The namespace's first process starts the reader, and then becomes the agent.
    started = f'{reader} -c \'trap "echo > {tmp_path}/reloaded" HUP; echo > {tmp_path}/up;'
    started += (
        ' while :; do sleep 0.05; done\' & until test -e "$0/up"; do sleep 0.02; done; exec "$@"'
    )
    wrapper = [*before, "sh", "-c", started, str(tmp_path)]
    with agent(tmp_path, "signal", reader.name, before=wrapper):
        until((tmp_path / "reloaded").exists, LONG)


def test_the_description_of_hooks_loads_nothing_that_only_some_of_them_need():
    heavy = ("ssl", "subprocess", "http.client", "urllib3", "cryptography", "asyncio")
    ours = ("certagent.runtime.hooks.processes", "certagent.runtime.hooks.webhook")
    script = (
        "import sys; import certagent.runtime.hooks.runner\n"
        f"print(*sorted(set(sys.modules) & {set(heavy + ours)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment({}), capture_output=True, check=True
    )

    assert done.stdout == b"\n"
