"""What stands around the agent: istiod's own switch, and the port of the probes."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from msgspec import UNSET

from certagent.cli.diagnosis.result import About
from certagent.cli.rules import is_multiroot, takes_roots
from certagent.cli.run import DEFAULT_ADDRESS
from certagent.errors import ConfigurationError
from certagent.runtime.health import SERVER, listen, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import Config

ISTIOD = About("istiod")
PROBES = About("probes")

_FLAG = "ISTIO_MULTIROOT_MESH"
_ANSWER_SECONDS = 3.0


def istiod(config: Config, environ: Mapping[str, str]) -> Iterator[Result]:
    """Yield what would become of a change of roots, as far as it can be seen from here."""
    if not any(bundle.kind == "ca" for bundle in config.bundles):
        return
    mode, seen = takes_roots(config, environ), environ.get(_FLAG)
    shown = f"{_FLAG} is {seen!r} here" if seen is not None else f"{_FLAG} is not set here"
    if mode == "hot" and seen is not None and not is_multiroot(environ):
        yield ISTIOD.warning(
            f"rotation.istiod is hot, and {shown}.",
            "An istiod that is started so refuses new roots, and every set after them: set"
            f" {_FLAG}=true for istiod.",
        )
    elif mode == "hold":
        yield ISTIOD.warning(
            f"A change of roots would be held back: {shown}.",
            f"Set {_FLAG}=true for istiod and for certagent, or configure rotation.istiod.",
        )
    elif mode == "restart":
        yield ISTIOD.ok("A change of roots runs the hooks that restart istiod.")
    else:
        yield ISTIOD.ok(f"A change of roots is published while istiod runs: {shown}.")


def probes(config: Config) -> Iterator[Result]:
    """Yield whether the probes' port is free, or answered by a certagent that runs.

    Raises `ConfigurationError` where an agent would not start.
    """
    asked = config.server.address
    address = DEFAULT_ADDRESS if asked is UNSET else asked
    if not address:
        yield PROBES.skipped("Probes and metrics are switched off (server.address).")
        return
    host, port = parse_address(address)
    if port and _is_certagent(host or "127.0.0.1", port):
        yield PROBES.ok(f"A certagent answers at {address}.")
        return
    try:
        listen(address).close()
    except ConfigurationError as error:
        if asked is not UNSET:
            raise
        yield PROBES.warning(f"{error.message} An agent would run without probes.", error.hint)
        return
    yield PROBES.ok(f"{address} is free for probes and metrics.")


def _is_certagent(host: str, port: int) -> bool:
    """Say whether a certagent answers there: it says so itself (its `Server` header)."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/livez")
        return (connection.getresponse().getheader("Server") or "").startswith(SERVER)
    except (OSError, http.client.HTTPException, UnicodeError):
        return False
    finally:
        connection.close()
