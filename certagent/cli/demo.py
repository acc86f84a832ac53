"""`certagent demo`: a dev Vault, a mesh CA and a live rotation, on this machine.

Whatever ends it, the processes that it started end, and what it made is removed.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.cli.demonstration.children import STOPS
from certagent.cli.demonstration.narration import Narrator
from certagent.cli.demonstration.operator import PATH, Places
from certagent.cli.demonstration.server import Server, openbao, users
from certagent.cli.demonstration.sidecar import sidecar
from certagent.cli.demonstration.story import CLUSTERS, NEW_MESH, Story

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

    from certagent.cli.demonstration.sidecar import Sidecar

_LOOK = 0.5  # seconds


class Stopped(BaseException):
    """A signal asks for the end; its number is the argument. No `except Exception` takes it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Start an OpenBao on this machine, put a mesh CA with two clusters into it, run the agent"
        " for one of them, rotate its CA and then the root of both. It takes seconds, tells what"
        " it does, and leaves nothing behind."
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave it running to play with, until Ctrl-C"
    )
    parser.add_argument(
        "--vault",
        metavar="URL",
        help="use this dev Vault, with VAULT_TOKEN, under mounts that are removed at the end",
    )
    parser.add_argument(
        "--yes", action="store_true", help="with --vault: it may be on another machine"
    )


def run(arguments: argparse.Namespace) -> int:
    """Tell the story; exit 0, or 128 and the signal's number where that cut it short."""
    theirs = users(arguments.vault, consented=arguments.yes) if arguments.vault else None
    narrator = Narrator()
    try:
        with _stoppable(), ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="certagent-demo-")))
            try:
                agent, server = _tell(narrator, theirs, home, stack)
                if arguments.keep:
                    _keep(narrator, server, agent, home)
            finally:
                _ignore_stops()
    except Stopped as stopped:
        narrator.tell("Stopped, and cleaned up.")
        return 128 + int(stopped.args[0])
    _close(narrator)
    return 0


def _tell(
    narrator: Narrator, theirs: Server | None, home: Path, stack: ExitStack
) -> tuple[Sidecar, Server]:
    """Go through the story; what must be ended or removed is on `stack`."""
    narrator.step("A Vault" if theirs is None else "Your Vault")
    server = theirs or stack.enter_context(openbao(home))
    operator = server.operator()
    version = operator.version()
    if server.is_ours:
        narrator.tell(
            f"OpenBao {version}, the open fork of Vault, listens on {server.address}: in memory, on"
            " this machine alone, gone when this ends."
        )
    else:
        narrator.tell(
            f"Version {version} at {server.address}. Everything that is made there begins with"
            f" {server.prefix} and is removed at the end."
        )
        stack.callback(operator.undo)
    story = Story(narrator, server, operator, home)
    story.make_mesh_ca()
    story.set_up_vault()
    first = CLUSTERS[0]
    agent = stack.enter_context(
        sidecar(server, story.places[first], story.projected_token(first), home)
    )
    published = story.publish(agent)
    rotated = story.rotate(agent, published)
    story.push_badly(agent, rotated)
    story.replace_root(agent, rotated)
    story.trespass()
    return agent, server


def _keep(narrator: Narrator, server: Server, agent: Sidecar, home: Path) -> None:
    """Tell what there is to play with, and wait for a stop."""
    narrator.step("It keeps running: play with it")
    token = [f"export VAULT_TOKEN={server.token}"] if server.is_ours else []
    narrator.offer(
        [
            f"export PATH={Path(sys.executable).parent}:$PATH",
            f"export VAULT_ADDR={server.address}",
            *token,
            f"cd {home}",
        ]
    )
    narrator.tell("Rotate once more (`vault kv put` works as well):")
    mount = Places(CLUSTERS[0], server.prefix).secrets
    narrator.offer(
        [
            f"certagent ca intermediate --key ec256 --root {NEW_MESH} --out mine {CLUSTERS[0]}",
            f"cd mine/{CLUSTERS[0]}",
            f"bao kv put -mount={mount} {PATH} \\",
            "  ca_key=@ca-key.pem ca_cert=@ca-cert.pem \\",
            "  cert_chain=@cert-chain.pem root_cert=@root-cert.pem",
        ]
    )
    narrator.tell("And look at it:")
    narrator.offer(
        [
            f"certagent status {agent.directory}",
            f"curl http://{agent.settings['CERTAGENT_SERVER_ADDRESS']}/metrics",
            f"tail -f {agent.log}",
        ]
    )
    narrator.tell("Ctrl-C ends it, and removes all of it.")
    with suppress(Stopped):
        while True:
            agent.require_running()
            time.sleep(_LOOK)


def _close(narrator: Narrator) -> None:
    narrator.step("Cleaned up: nothing of this is left")
    narrator.tell(
        "You saw: a CA that came from Vault verified and as one set; a rotation that was one swap;"
        " a bad push that changed nothing; a new root that came in stages, by itself; a cluster"
        " that reads its own CA and no other."
    )
    narrator.tell(
        "Next: the README tells how to put certagent beside istiod with one Helm overlay;"
        " `certagent ca root --out DIR` makes a CA to keep; `certagent demo --keep` stays to play."
    )


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn the first signal that asks for the end into `Stopped`; further ones change nothing."""

    def stop(number: int, _frame: FrameType | None) -> None:
        _ignore_stops()
        raise Stopped(number)

    # Under nohup, SIGHUP is ignored, and stays so.
    taken = [each for each in STOPS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in taken}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore_stops() -> None:
    """From here on things are being removed, and that must not be cut short."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
