"""The results of checks, by what they are called, and the configurations that they look at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml

from certagent.config.decoding import load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from certagent.cli.diagnosis.result import Result
    from certagent.config.model import Config


class Report:
    """What checks found."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = list(results)

    def of(self, name: str) -> list[Result]:
        return [each for each in self.results if each.name == name]

    def verdicts(self, name: str) -> list[str]:
        return [each.verdict.value for each in self.of(name)]

    def the(self, name: str, verdict: str = "") -> Result:
        """The one result of a check, or the one with this verdict."""
        (result,) = [each for each in self.of(name) if not verdict or each.verdict == verdict]
        return result

    @property
    def text(self) -> str:
        return "\n".join(f"{each.name} {each.message} {each.fix}" for each in self.results)

    @property
    def failures(self) -> list[tuple[str, int]]:
        return [(each.name, each.exit_code) for each in self.results if each.verdict == "failure"]


def configured(home: Path, source: dict[str, Any], **more: Any) -> Config:
    """A configuration of one bundle that is published below `home`; `bundle` are its other keys."""
    bundle = {"name": "ca", "source": source, "output": {"directory": str(home / "ca")}}
    document = {"bundles": [{**bundle, **more.pop("bundle", {})}], **more}
    path = home / "certagent.yaml"
    path.write_text(yaml.safe_dump(document))
    return load(str(path), os.environ)
