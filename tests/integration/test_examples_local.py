"""What examples/local says is true: its commands, in their order, against a real dev server."""

from __future__ import annotations

import shutil

import pytest

from tests.support.examples import Page, Shell
from tests.support.openbao import free_port

PAGE = Page("local")
HASHICORPS = shutil.which("vault") or ""
WAIT = "timeout 20 sh -c 'until grep -q \"{text}\" agent.log; do sleep 0.05; done'\n"
READY = "timeout 20 sh -c 'until vault status > status.log 2>&1; do sleep 0.05; done'\n"
SERVERS = "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n"


@pytest.fixture(params=["openbao", "hashicorp"])
def walk(request, tmp_path):
    """Run the blocks in one shell, which ends what it started; return what it printed."""
    if request.param == "hashicorp" and not HASHICORPS:
        pytest.skip("HashiCorp's own `vault` is not installed here")
    shell = Shell(PAGE, tmp_path, HASHICORPS if request.param == "hashicorp" else "")
    ports = {"8200": str(free_port()), "9089": str(free_port())}

    def walk_(*steps):
        script = SERVERS + "\n".join(PAGE.commands.get(step, step) for step in steps)
        for port, free in ports.items():
            script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        return shell.run(script)

    return walk_


def test_a_day_on_a_laptop(walk):
    printed = walk(
        "server",
        READY,
        "store",
        "run",
        "look",
        "again",
        WAIT.format(text="version=2"),
        "bad",
        WAIT.format(text="version 3"),
        "cat agent.log",
        "end",
    )

    assert "good" in printed
    assert "certagent_not_after_timestamp_seconds" in printed
    assert "key-mismatch" in printed


def test_every_command_is_run():
    assert PAGE.unmarked == []
