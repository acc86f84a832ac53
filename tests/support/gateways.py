"""An agent that serves gateways: its configuration, its secrets, and what they find published."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.material import tls_fields
from tests.support.openbao import free_port
from tests.support.process import certagent, running
from tests.support.scraping import get

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from certagent.material.raw import RawBundle
    from tests.support.openbao import OpenBao
    from tests.support.process import Finished, Running


@dataclass
class Gateways:
    """A configuration with bundles of a KV v2 mount, each published below `home`."""

    openbao: OpenBao
    mount: str
    home: Path
    bundles: list[dict[str, Any]] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    def bundle(self, name: str, *, output: dict[str, Any] | None = None, **keys: Any) -> None:
        """Configure a bundle of kind tls, from the secret of its name unless told."""
        source = keys.pop("source", {"vaultKV": {"mount": self.mount, "path": name}})
        directory = {"directory": str(self.home / name), **(output or {})}
        self.bundles.append(
            {"name": name, "kind": "tls", "source": source, "output": directory, **keys}
        )

    def put(self, name: str, raw: RawBundle) -> int:
        return self.openbao.put(self.mount, name, tls_fields(raw))

    def current(self, name: str) -> dict[str, bytes]:
        """What a gateway finds below `<directory>/current`; nothing where nothing is."""
        link = self.home / name / "current"
        try:
            version = link.parent / link.readlink()
            return {each.name: each.read_bytes() for each in version.glob("[!.]*")}
        except FileNotFoundError:
            return {}

    def served(self, name: str) -> bytes:
        return self.current(name).get("tls.crt", b"")

    @property
    def file(self) -> Path:
        """The configuration, as it stands now."""
        path = self.home / "certagent.yaml"
        path.write_text(yaml.safe_dump({"bundles": self.bundles}))
        return path

    @property
    def environ(self) -> dict[str, str]:
        return {
            "VAULT_ADDR": self.openbao.address,
            "VAULT_TOKEN": self.openbao.token,
            "CERTAGENT_INTERVAL": "100ms",
            "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{self.port}",
        }

    def run(self) -> AbstractContextManager[Running]:
        return running("--config", self.file, **self.environ)

    def verb(self, *words: object, **environ: object) -> Finished:
        return certagent(*words, **{**self.environ, **environ})

    def get(self, path: str) -> tuple[int, str]:
        return get(self.port, path)

    def metric(self, name: str, **labels: str) -> float | None:
        wanted = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        line = rf"^{re.escape(f'{name}{{{wanted}}}')} (\S+)$"
        match = re.search(line, self.get("/metrics")[1], re.MULTILINE)
        return float(match[1]) if match else None
