"""`certagent migrate FILE|-`: the overlay that takes the place of vault-agent's annotations.

Nothing is asked of a cluster or a store, and nothing is written but to stdout, so that an error
leaves no half of anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from certagent.cli.migration import delivery
from certagent.cli.migration.login import Wishes
from certagent.cli.migration.reading import MAX_BYTES, choose, places
from certagent.cli.migration.report import report
from certagent.cli.migration.translation import migrate
from certagent.cli.overlay import NAMES, add_pod, remarks_for
from certagent.errors import ConfigurationError, UsageError
from certagent.kubernetes.options import PLACEHOLDER, Options
from certagent.kubernetes.overlay import config_map
from certagent.kubernetes.rendering import yaml

if TYPE_CHECKING:
    import argparse

    from certagent.cli.migration.translation import Migration


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Read a chart's values, a Pod or a Deployment with vault.hashicorp.com annotations, and"
        " print the overlay with which certagent does the same: on stdout, with a report of what"
        " changes on stderr. What cannot be migrated is refused, all of it at once."
    )
    parser.add_argument("file", metavar="FILE", help="YAML or JSON; `-`: standard input")
    parser.add_argument("--at", metavar="PLACE", help="where several places have annotations")
    parser.add_argument(
        "--vault-address",
        metavar="URL",
        default="",
        help="as the pod reaches it, where `service` does not say it: the injector knew",
    )
    parser.add_argument(
        "--audience",
        default="",
        help="of a token for Vault alone, as its role asks for; default: the pod's own token",
    )
    parser.add_argument(
        "--mount", default="", help="of the secrets engine, where it has more than one name"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--kustomize", action="store_true", help="a patch, also for a chart's values")
    form.add_argument("--configuration", action="store_true", help="the configuration file")
    form.add_argument("--config-map", action="store_true", help="the ConfigMap of that file")
    add_pod(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one document, and the report; raises `UsageError` and `ConfigurationError`."""
    what, data = _input(arguments.file)
    place = choose(places(data, what), arguments.at, what)
    wishes = Wishes(
        address=arguments.vault_address,
        plain_http=os.environ.get("CERTAGENT_VAULT_PLAIN_HTTP", "").lower() in {"true", "1"},
        audience=arguments.audience,
        mount=arguments.mount.strip("/"),
    )
    migration = migrate(place, wishes)
    is_patch = arguments.kustomize or migration.place.is_pod
    options = _options(arguments, migration)
    text = _text(arguments, migration, options, is_patch=is_patch)
    told = report(migration, options, is_patch=is_patch)
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.stderr.write(told)
    if arguments.image == PLACEHOLDER and not (arguments.configuration or arguments.config_map):
        sys.stderr.write(f"{PLACEHOLDER} is a placeholder: name your image with --image.\n")
    return 0


def _input(file: str) -> tuple[str, bytes]:
    """Return how messages call the input, and its bytes."""
    if file == "-":
        if sys.stdin is None:
            raise UsageError("Standard input is closed.", hint="Pipe in values, or name a file.")
        return "Standard input", sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with Path(file).open("rb") as stream:
            return file, stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise ConfigurationError(f"{file} cannot be read: {reason}.") from None


def _object(arguments: argparse.Namespace, migration: Migration) -> dict[str, str]:
    """Return the name and the namespace of the Deployment, and of what goes with it."""
    target = migration.place.target
    told = "" if target.get("kind") == "Pod" else target.get("name")  # a Pod is of some Deployment
    default_name, default_namespace = NAMES[migration.reader.chart]
    return {
        "name": arguments.name or told or default_name,
        "namespace": arguments.namespace or target.get("namespace") or default_namespace,
    }


def _options(arguments: argparse.Namespace, migration: Migration) -> Options:
    return Options(
        image=arguments.image,
        istio=arguments.istio,
        kubernetes=arguments.kubernetes,
        config_map=f"certagent-{_object(arguments, migration)['name']}",
        secrets=dict(arguments.secret),
        openshift=arguments.openshift,
    )


def _text(
    arguments: argparse.Namespace, migration: Migration, options: Options, *, is_patch: bool
) -> str:
    where = _object(arguments, migration)
    if arguments.configuration:
        return yaml(migration.document)
    if arguments.config_map:
        if migration.environ:
            raise UsageError(
                "No ConfigMap is needed: the overlay has all of the configuration in variables.",
                hint="--configuration prints it as a file.",
            )
        text = yaml(migration.document)
        return yaml(config_map(text, name=options.config_map, namespace=where["namespace"]))
    if is_patch:
        document = delivery.patch(migration, options, **where)
    else:
        document = delivery.values(migration, options)
    heading = f"# In place of the vault.hashicorp.com annotations of {migration.place.name}.\n"
    return heading + yaml(document, remarks_for(migration.reader, options))
