"""One Key Vault: secrets with versions, who may do what with them, and an operator's hand in it."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from tests.support.azure.akv import conflict, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

    from tests.support.azure.clouds import Clock
    from tests.support.azure.entra import Tenant
    from tests.support.azure.tokens import Principal

PKCS12 = "application/x-pkcs12"
PEM = "application/x-pem-file"
RECOVERABLE_DAYS = 90

API_VERSIONS = ("7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")


@dataclass
class Version:
    """One version of a secret; times in whole seconds since 1970, as the service keeps them."""

    id: str
    value: str = field(repr=False)
    created: int
    updated: int
    content_type: str | None = None
    tags: dict[str, str] | None = None
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    certificate: bool = False
    """Whether a certificate object stands behind it."""

    @property
    def attributes(self) -> dict[str, object]:
        """What the service tells of it."""
        given = {"nbf": self.not_before, "exp": self.expires}
        return {
            "enabled": self.enabled,
            **{name: value for name, value in given.items() if value is not None},
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": RECOVERABLE_DAYS,
        }


@dataclass
class Deleted:
    """A secret that lies in the bin."""

    versions: dict[str, Version]
    at: int


class KeyVault:
    """A vault; its methods are what an operator does, without asking for permission.

    `authorization` is how permissions are given, and what a refusal says; `firewalled` refuses
    everybody's address. `page_size` bounds a page of a list.
    """

    def __init__(
        self,
        name: str,
        tenant: Tenant,
        clock: Clock,
        *,
        page_size: int = 25,
        authorization: Literal["rbac", "policies"] = "rbac",
        api_versions: Sequence[str] = API_VERSIONS,
    ) -> None:
        self.name = name
        self.tenant = tenant
        self.host = f"{name}.{tenant.cloud.vault_suffix}"
        self.url = f"https://{self.host}"
        self.page_size = page_size
        self.authorization = authorization
        self.api_versions = api_versions
        self.firewalled = False
        self.live: dict[str, dict[str, Version]] = {}
        self.bin: dict[str, Deleted] = {}
        self._clock = clock
        self._permissions: dict[str, set[str]] = {}

    def grant(self, principal: Principal, *permissions: str) -> None:
        """Allow somebody `get`, `list`, `set` or `delete` of secrets."""
        self._permissions.setdefault(principal.object_id, set()).update(permissions)

    def revoke(self, principal: Principal, *permissions: str) -> None:
        """Take permissions away."""
        self._permissions.get(principal.object_id, set()).difference_update(permissions)

    def allows(self, principal: Principal, permission: str) -> bool:
        """Whether somebody may."""
        return permission in self._permissions.get(principal.object_id, ())

    def set(
        self,
        name: str,
        value: str,
        *,
        content_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        enabled: bool = True,
        not_before: datetime | int | None = None,
        expires: datetime | int | None = None,
        created_on: datetime | int | None = None,
        certificate: bool = False,
    ) -> str:
        """Write a new version, now unless told, and return its id."""
        if name in self.bin:
            raise conflict(name)
        created = _seconds(created_on) or self._now()
        version = Version(
            secrets.token_hex(16),
            value,
            created,
            created,
            content_type=content_type,
            tags=dict(tags) if tags is not None else None,
            enabled=enabled,
            not_before=_seconds(not_before),
            expires=_seconds(expires),
            certificate=certificate,
        )
        self.live[name] = {**self.live.get(name, {}), version.id: version}
        return version.id

    def certificate(
        self,
        name: str,
        key: object,
        chain: Sequence[Certificate],
        *,
        form: Literal["pkcs12", "pem"] = "pkcs12",
        exportable: bool = True,
        **how: datetime | bool,
    ) -> str:
        """Import a certificate object, leaf first; return the version of the secret behind it.

        Without `exportable` that secret has the certificates alone. Its attributes' times are the
        leaf's.
        """
        leaf = chain[0]
        make = _pkcs12 if form == "pkcs12" else _pem
        return self.set(
            name,
            make(name, key if exportable else None, chain),
            content_type=PKCS12 if form == "pkcs12" else PEM,
            not_before=leaf.not_valid_before_utc,
            expires=leaf.not_valid_after_utc,
            certificate=True,
            **how,
        )

    def version(self, name: str, version: str | None = None) -> Version:
        """Return a version, the newest unless told; Refused where there is none."""
        versions = self.live.get(name, {})
        if version is None and versions:
            # Of two of the same second, the later one of the writes: dicts remember.
            return max(reversed(versions.values()), key=lambda one: one.created)
        if version not in versions:
            raise not_found(f"{name}/{version}" if version else name)
        return versions[version]

    def disable(self, name: str, version: str | None = None) -> None:
        """Withdraw a version, the newest unless told."""
        self.change(self.version(name, version), enabled=False)

    def enable(self, name: str, version: str | None = None) -> None:
        """Take that back."""
        self.change(self.version(name, version), enabled=True)

    def change(self, version: Version, **attributes: object) -> None:
        """Set attributes of a version, as of now."""
        for name, value in {**attributes, "updated": self._now()}.items():
            setattr(version, name, value)

    def delete(self, name: str) -> Deleted:
        """Put a secret in the bin, with all versions."""
        if name not in self.live:
            raise not_found(name)
        self.bin[name] = Deleted(self.live.pop(name), self._now())
        return self.bin[name]

    def recover(self, name: str) -> None:
        """Take a secret out of the bin."""
        self.live[name] = self.bin.pop(name).versions

    def purge(self, name: str) -> None:
        """Empty the bin of a secret."""
        del self.bin[name]

    def _now(self) -> int:
        return int(self._clock.now())


def _seconds(time: datetime | int | None) -> int | None:
    return int(time.timestamp()) if isinstance(time, datetime) else time


def _pkcs12(name: str, key: object, chain: Sequence[Certificate]) -> str:
    """Return what Key Vault shows: base64, no password."""
    leaf, *rest = chain
    # A store without a key has no leaf either: all of its certificates are equal.
    content = (None, None, chain) if key is None else (key, leaf, rest)
    data = pkcs12.serialize_key_and_certificates(name.encode(), *content, NoEncryption())
    return base64.b64encode(data).decode()


def _pem(_: str, key: object, chain: Sequence[Certificate]) -> str:
    """Return what Key Vault shows: the key first, then the certificates from the leaf on."""
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    parts = [] if key is None else [key.private_bytes(*form)]
    parts += [certificate.public_bytes(Encoding.PEM) for certificate in chain]
    return b"".join(parts).decode()
