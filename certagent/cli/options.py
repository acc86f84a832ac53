"""Flags and environment that several verbs share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from certagent.config.decoding import load
from certagent.config.settings import SETTINGS
from certagent.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    import argparse

    from certagent.config.model import Config
    from certagent.material.kinds import Kind


def add_configuration(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add `--config` and these flags of the settings' table to a verb."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get("CERTAGENT_CONFIG") or None,
        help="YAML configuration (CERTAGENT_CONFIG); the environment alone is enough for one CA",
    )
    for setting in SETTINGS:
        if setting.flag in flags:
            parser.add_argument(
                setting.flag,
                dest=setting.variable,
                metavar=setting.flag.rpartition("-")[2].upper(),
                help=f"{setting.help} ({setting.variable})",
            )


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment with the flags laid over it, each under its variable's name."""
    flags = {
        setting.variable: value
        for setting in SETTINGS
        if (value := getattr(arguments, setting.variable, None)) is not None
    }
    return {**os.environ, **flags}


def configuration(arguments: argparse.Namespace) -> Config:
    """Return the configuration of file, environment and flags; raises `ConfigurationError`."""
    try:
        return load(arguments.config, environment(arguments))
    except ConfigurationError as error:
        if error.log_format == "json":
            from certagent.runtime.logs import configure  # noqa: PLC0415 - only where it failed

            configure("json")
        raise


def add_kind(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--kind` and `--usage` to a verb that judges a set; `default` says what holds without."""
    parser.add_argument(
        "--kind",
        choices=("ca", "tls"),
        help=f"what the set is: a CA for istiod, or a gateway's certificate (default: {default})",
    )
    parser.add_argument(
        "--usage",
        choices=("server", "client", "both"),
        help="with --kind tls: as what the certificate is shown (default: server)",
    )


def asked_kind(arguments: argparse.Namespace) -> Kind | None:
    """Return the kind that `add_kind`'s flags ask for, if any; raises `UsageError`."""
    if arguments.usage and arguments.kind != "tls":
        raise UsageError(
            "--usage is of --kind tls alone.", hint="Add --kind tls, or leave --usage out."
        )
    if not arguments.kind:
        return None
    from certagent.cli.rules import kind  # noqa: PLC0415 - an agent's flags need no material

    return kind(arguments.kind, arguments.usage)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add `--format text|json` to a verb that shows something."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="for reading, or for programs"
    )
