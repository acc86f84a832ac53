"""An agent's surroundings on one machine: a directory as its source, and one that it publishes to.

site = Site(tmp_path, "istiod")         # or "gateway"
site.push("first")
with site.oracle() as oracle, site.run() as agent:
    oracle.until("first")
    site.push("second")
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from certagent.layouts import CURRENT, DATA
from certagent.material.kinds import CA
from certagent.material.serving import tls
from tests.support.inotify import OPEN, Inotify
from tests.support.material import files, make_leaf, make_root, tls_files
from tests.support.oracle import Oracle
from tests.support.process import COMMAND, certagent, running, until
from tests.support.publishing import entries, expected_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from certagent.material.kinds import Kind
    from tests.support.process import Finished, Running

LAYOUTS = ("istiod", "gateway")
NAMES = ("first", "second", "third")


@cache
def material(layout: str, number: int = len(NAMES)) -> tuple[dict[str, bytes], ...]:
    """Return sets of a layout's kind, each of which may follow the other at once."""
    if layout == "istiod":
        root = make_root()
        return tuple(files(root.intermediate().raw()) for _ in range(number))
    issuer = make_root().intermediate("gateways", dns=())
    return tuple(tls_files(make_leaf(issuer).raw()) for _ in range(number))


@dataclass
class Site:
    """`source` is swapped as a whole by each push; `output` may stand on a volume of its own."""

    home: Path
    layout: str
    sets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    hooks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = self.home / "source"
        self.volume = self.home / "volume"
        self.output = self.volume / "out"
        self.output.mkdir(parents=True)
        self._pushes = itertools.count(1)
        self.sets = self.sets or dict(zip(NAMES, material(self.layout), strict=True))

    @property
    def kind(self) -> Kind:
        return CA if self.layout == "istiod" else tls("server")

    @property
    def link(self) -> str:
        return DATA if self.layout == "istiod" else CURRENT

    def push(self, name: str) -> None:
        """Let the source hold a set, whole, from one moment to the next."""
        self._swap_in(self._made(name))

    def push_and_see_read(self, name: str) -> None:
        """Push a set, and wait until a pass reads it: none that read another is under way then."""
        directory = self._made(name)
        with Inotify(directory, OPEN) as watch:
            self._swap_in(directory)
            until(lambda: any(event.name in self.sets[name] for event in watch.events()))

    def _made(self, name: str) -> Path:
        directory = self.home / f"source-{next(self._pushes)}"
        directory.mkdir()
        for file, data in self.sets[name].items():
            (directory / file).write_bytes(data)
        return directory

    def _swap_in(self, directory: Path) -> None:
        new = self.home / "source.new"
        new.symlink_to(directory)
        new.rename(self.source)

    def oracle(self, **options: Any) -> Oracle:
        """The judge of what is found in `output`: the sets of this site, and nothing else."""
        return Oracle(self.output, link=self.link, kind=self.kind, **options, **self.sets)

    def found(self) -> dict[str, bytes]:
        """What lies in `output` now; nothing where nothing does."""
        try:
            version = self.output / (self.output / self.link).readlink()
            return {each.name: each.read_bytes() for each in version.glob("[!.]*")}
        except FileNotFoundError:
            return {}

    @property
    def words(self) -> tuple[object, ...]:
        """The configuration, as the command line names it."""
        bundle = {
            "name": "it",
            "kind": "ca" if self.layout == "istiod" else "tls",
            "source": {"files": {"directory": str(self.source)}},
            "output": {"directory": str(self.output)},
            "hooks": self.hooks,
        }
        config = {"refresh": {"interval": "100ms"}, **self.options, "bundles": [bundle]}
        file = self.home / "certagent.yaml"
        file.write_text(yaml.safe_dump(config))
        return ("--config", file)

    def run(self, prefix: Sequence[str] = (), **environ: object) -> AbstractContextManager[Running]:
        """Run an agent that stays; `prefix` is what it is started with."""
        return running(*self.words, command=(*prefix, *COMMAND), **environ)

    def init(self, prefix: Sequence[str] = (), deadline: str = "100ms") -> Finished:
        """Run an agent that publishes once."""
        return certagent("init", *self.words, "--deadline", deadline, command=(*prefix, *COMMAND))

    @property
    def is_tidy(self) -> bool:
        """Whether there is nothing in `output` but what one published set needs."""
        try:
            if self.layout == "gateway":
                return entries(self.output) == [CURRENT, str((self.output / CURRENT).readlink())]
            return entries(self.output) == expected_entries(self.output)
        except FileNotFoundError:
            return False
