"""The three clouds of Azure: each with its own directory hosts and its own suffix of vaults."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple


class Cloud(NamedTuple):
    """A cloud's names; `authorities` are Entra ID's hosts, the preferred one first."""

    name: str
    authorities: tuple[str, ...]
    vault_suffix: str

    @property
    def resource(self) -> str:
        """What a token for this cloud's vaults is for: its audience."""
        return f"https://{self.vault_suffix}"


CLOUDS = {
    cloud.name: cloud
    for cloud in (
        Cloud("public", ("login.microsoftonline.com",), "vault.azure.net"),
        Cloud(
            "china",
            ("login.chinacloudapi.cn", "login.partner.microsoftonline.cn"),
            "vault.azure.cn",
        ),
        Cloud("usGovernment", ("login.microsoftonline.us",), "vault.usgovcloudapi.net"),
    )
}

AUTHORITIES = {host: cloud for cloud in CLOUDS.values() for host in cloud.authorities}
"""The cloud of each host of Entra ID."""

TLS_NAMES = (*AUTHORITIES, *(f"*.{cloud.vault_suffix}" for cloud in CLOUDS.values()))
"""What the certificate of every host here says; vaults have a wildcard, as the real ones do."""


@dataclass
class Clock:
    """The servers' time; `offset` seconds away from the machine's."""

    offset: float = 0

    def now(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.offset

    def utc(self, form: str = "%Y-%m-%d %H:%M:%SZ", at: float | None = None) -> str:
        """Return a time, now unless told, as text."""
        return time.strftime(form, time.gmtime(self.now() if at is None else at))
