"""`certagent schema`: the configuration's JSON schema, for editors and for CI."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from certagent.config.model import json_schema

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the schema has no variants."""
    parser.description = "Print the JSON schema of the configuration file."


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - the interface of all verbs
    """Print the schema."""
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
