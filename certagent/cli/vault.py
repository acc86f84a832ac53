"""`certagent vault setup`: what each cluster needs in Vault, as commands, or made at once.

One cluster has a login mount, a key-value engine, a policy and a role of its own, so that no
cluster can read another's CA.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from certagent.cli.options import add_format
from certagent.cli.provisioning.arguments import PLACEHOLDER, access, trusts
from certagent.cli.provisioning.commands import after, command, document
from certagent.cli.provisioning.steps import Access, Mount, steps
from certagent.config.decoding import load
from certagent.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from certagent.cli.provisioning.server import Change
    from certagent.cli.provisioning.steps import Step
    from certagent.sources.vault.connection import VaultConnection

_OPERATOR = ("VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_TOKEN")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Print the commands that set up login, policy and role for each cluster, or with --apply"
        " make them (VAULT_ADDR, VAULT_TOKEN): what is there already stays, and a second time"
        f" changes nothing. {PLACEHOLDER} stands for the cluster's name in files and URLs."
    )
    parser.add_argument("action", choices=("setup",), help="what to do")
    parser.add_argument(
        "--cluster", metavar="NAME", action="append", required=True, help="may be repeated"
    )
    known = parser.add_argument_group("how Vault knows a cluster's service accounts")
    known.add_argument("--issuer", metavar="URL", help="of the tokens; Vault fetches its keys")
    known.add_argument("--issuer-ca", metavar="FILE", help="PEM of the CA of that URL")
    known.add_argument(
        "--keys", metavar="FILE", help="the issuer's: `kubectl get --raw /openid/v1/jwks`, or PEM"
    )
    known.add_argument(
        "--kubernetes-host", metavar="URL", help="the API server, asked with the login's own token"
    )
    known.add_argument("--kubernetes-ca", metavar="FILE", help="PEM of the API server's CA")
    default = Access()
    shown = "default %(default)s"
    account = f"{default.namespace}/{default.service_account}"
    parser.add_argument("--service-account", metavar="NAMESPACE/NAME", default=account, help=shown)
    parser.add_argument("--role", default=default.role, help=shown)
    parser.add_argument("--path", default=default.path, help=f"of the secret, {shown}")
    parser.add_argument("--kv-version", type=int, choices=(1, 2), default=2, help=shown)
    parser.add_argument(
        "--audience", help="of the tokens, default vault; with --kubernetes-host its own"
    )
    parser.add_argument("--ttl", default=default.ttl, help=f"of a login, {shown}")
    parser.add_argument("--apply", action="store_true", help="make it, instead of printing it")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also change a policy, or a mount's configuration, that says something else",
    )
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print or apply; raises `UsageError`, and with --apply what `Server` raises."""
    granted = access(arguments)
    known = trusts(arguments)
    plans = {cluster: steps(cluster, trust, granted) for cluster, trust in known.items()}
    if arguments.apply:
        done = _applied(plans, force=arguments.force)
        (_show_json if arguments.format == "json" else _show_text)(done)
    elif arguments.format == "json":
        requests = {cluster: [document(step) for step in plan] for cluster, plan in plans.items()}
        sys.stdout.write(json.dumps(requests, indent=2) + "\n")
    else:
        for cluster, plan in plans.items():
            lines = [f"# {cluster}", *map(command, plan), *after(cluster, known[cluster], granted)]
            sys.stdout.write("\n".join(lines) + "\n\n")
    return 0


def _applied(plans: Mapping[str, Sequence[Step]], *, force: bool) -> Iterator[tuple[str, Change]]:
    """Look at all clusters before the first change; yield each step when it is as it should be."""
    from certagent.cli.provisioning.server import Server  # noqa: PLC0415 - printing needs no client

    with _operator() as connection:
        server = Server(connection)
        found = {cluster: server.changes(plan, force=force) for cluster, plan in plans.items()}
        for cluster, changes in found.items():
            for change in changes:
                if change.is_needed:
                    server.apply(change)
                yield cluster, change


@contextmanager
def _operator() -> Iterator[VaultConnection]:
    """Log in as an operator does: VAULT_TOKEN at VAULT_ADDR."""
    from certagent.runtime.logs import conceal  # noqa: PLC0415 - only where secrets are
    from certagent.sources.vault.connection import VaultConnection  # noqa: PLC0415 - printing needs no client

    names = (*_OPERATOR, "CERTAGENT_VAULT_PLAIN_HTTP")
    environ = {name: os.environ.get(name, "") for name in names}
    if not environ["VAULT_TOKEN"]:
        raise ConfigurationError(
            "--apply needs a token of somebody who may set up Vault.",
            hint="Set VAULT_TOKEN; or run the commands that are printed without --apply.",
        )
    # A source makes the decoder judge the address as it does for an agent.
    config = load(None, {**environ, "CERTAGENT_SOURCE": "vault:a/b", "ROOT_CA_DIR": "/"})
    assert config.vault  # noqa: S101 - a source in Vault without Vault does not decode
    connection = VaultConnection(
        config.vault, environment_token=environ["VAULT_TOKEN"], conceal=conceal
    )
    try:
        yield connection
    finally:
        connection.close()


def _show_text(done: Iterator[tuple[str, Change]]) -> None:
    """Tell each step as it is done: after an error it is known how far it went."""
    shown = ""
    for cluster, change in done:
        if cluster != shown:
            sys.stdout.write(f"{cluster}\n")
            shown = cluster
        step = change.step
        told = "made" if change.is_new else "changed" if change.differs else "unchanged"
        where = step.name if isinstance(step, Mount) else step.path
        what = f": {', '.join(change.differs)}" if change.differs else ""
        sys.stdout.write(f"  {told:<9}  {step.what:<19}  {where}{what}\n")


def _show_json(done: Iterator[tuple[str, Change]]) -> None:
    objects = [
        {
            "cluster": cluster,
            "what": change.step.what,
            "path": document(change.step)["path"],
            "made": change.is_new,
            "changed": list(change.differs),
        }
        for cluster, change in done
    ]
    sys.stdout.write(json.dumps(objects, indent=2) + "\n")
