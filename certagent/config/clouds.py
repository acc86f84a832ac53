"""The Azure clouds: where each one logs in, and what the URLs of its vaults look like.

The SDK takes the authority from its own settings and never from the vault's URL: with the authority
of another cloud, Entra ID would be asked for a token that nobody can issue. So both follow from one
setting here, and what disagrees with it is a fault of the configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){1,22}[a-z0-9]", re.IGNORECASE)
"""3 to 24 letters, digits and single dashes, from a letter to a letter or digit (Key Vault's own
rule: "About keys, secrets, and certificates", object identifiers)."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud: the hosts of its Entra ID, the first of which is asked, and its vaults' suffix."""

    authorities: tuple[str, ...]
    vault_suffix: str

    def vault_url(self, name: str) -> str:
        """Return the URL of a vault."""
        return f"https://{name}.{self.vault_suffix}"


CLOUDS: Mapping[str, Cloud] = MappingProxyType(
    {
        "public": Cloud(
            ("login.microsoftonline.com", "login.windows.net", "login.microsoft.com"),
            "vault.azure.net",
        ),
        "china": Cloud(
            ("login.chinacloudapi.cn", "login.partner.microsoftonline.cn"), "vault.azure.cn"
        ),
        "usGovernment": Cloud(
            ("login.microsoftonline.us", "login.usgovcloudapi.net"), "vault.usgovcloudapi.net"
        ),
    }
)


def is_vault_name(text: str) -> bool:
    """Tell whether a vault can have this name."""
    return _NAME.fullmatch(text) is not None


def vault_name(url: str) -> str:
    """Return the name in a vault's URL."""
    return (urlsplit(url).hostname or "").partition(".")[0]


def vault_url_fault(url: str, cloud: str) -> str:
    """Return what is wrong with a vault's URL in this cloud; empty if nothing is."""
    expected = f"expected https://<vault name>.{CLOUDS[cloud].vault_suffix}"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return f"{expected}, got what is no URL"
    if parts.scheme != "https":
        return f"{expected}: secrets travel over https only"
    if parts.username or parts.password or port is not None:
        return f"{expected}, without user and port"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f"{expected}, without path and query"
    return _host_fault(host, cloud, expected)


def _host_fault(host: str, cloud: str, expected: str) -> str:
    name, _, suffix = host.partition(".")
    others = {each.vault_suffix: other for other, each in CLOUDS.items() if other != cloud}
    if suffix in others:
        return f"{expected} for azure.cloud: {cloud}, got {suffix}: that is {others[suffix]}"
    if suffix != CLOUDS[cloud].vault_suffix:
        return f"{expected}, got {host[:100]!r}"
    if not is_vault_name(name):
        return f"{name[:40]!r} is no vault's name: 3 to 24 letters, digits and single dashes"
    return ""


def authority_fault(authority: str, cloud: str) -> str:
    """Return what is wrong with AZURE_AUTHORITY_HOST in this cloud; empty if nothing is."""
    text = authority if "://" in authority else f"https://{authority}"
    try:
        host = (urlsplit(text).hostname or "").lower()
    except ValueError:
        host = ""
    if host in CLOUDS[cloud].authorities:
        return ""
    meant = [name for name, each in CLOUDS.items() if host in each.authorities]
    hint = f"that is {meant[0]}: set azure.cloud to it" if meant else "no cloud has it: unset it"
    return f"{host[:60] or 'it'} is not where azure.cloud: {cloud} logs in; {hint}"
