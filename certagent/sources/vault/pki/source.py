"""Certificates that Vault's PKI engine issues, as a source: asked for, kept, renewed in time."""

from __future__ import annotations

import hashlib
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from certagent.errors import CertagentError, MaterialRefused
from certagent.material.raw import RawBundle
from certagent.sources import Revision
from certagent.sources.vault.pki.engine import Engine
from certagent.sources.vault.pki.issuers import DEFAULT, Issuers
from certagent.sources.vault.pki.signing import Issued, Signing
from certagent.sources.vault.pki.stages import Stage, observed, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certagent.config.model import VaultPKISource as VaultPKIConfig
    from certagent.material.bundle import KeyCertBundle
    from certagent.material.kinds import Kind
    from certagent.sources.vault.connection import VaultConnection
    from certagent.sources.vault.pki.issuers import Issuer, Mount

_LOG = logging.getLogger("certagent.vault")


@dataclass(frozen=True, slots=True)
class Destination:
    """What a source must know of where its certificates go.

    `held` returns what is published there already, or raises `MaterialRefused`: a restart goes on
    with it. `distribute` is d of the rotation's policy, nothing where a change is not staged.
    """

    kind: Kind
    held: Callable[[], KeyCertBundle | None] = lambda: None
    distribute: timedelta = timedelta()


class VaultPKISource:
    """Implements `sources.Source` on a PKI mount.

    A revision is a certificate of the pod's own, with the roots of all of the mount's issuers; its
    `created_at` is since when that issuer signs beside those roots (see `stages`). A poll is one
    request, which lists the issuers; a signature is asked for when there is no certificate, when
    `signing` says that it is time, or when the issuer changed, and once a pass and issuer at most.

    What is published already is gone on with, while it is what the configuration asks for. Keys and
    certificates stay in memory, and are renewed there: a renewal that fails raises, and is tried at
    the next pass. `random` returns a number in [0, 1), `clock` the time (aware).
    """

    def __init__(
        self,
        connection: VaultConnection,
        config: VaultPKIConfig,
        destination: Destination,
        *,
        random: Callable[[], float] = random.random,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        mount = config.mount.strip("/")
        self._name = f"vault-pki:{mount}/{config.role}" if config.role else f"vault-pki:{mount}"
        engine = Engine(connection, mount, self._name)
        self._issuers = Issuers(engine, config.issuer or DEFAULT, of_cas=destination.kind.is_ca)
        self._signing = Signing(engine, config, random)
        self._kind = destination.kind
        self._held: Callable[[], KeyCertBundle | None] | None = destination.held
        self._distribute = destination.distribute
        self._clock = clock
        self._stages: tuple[Stage, ...] = ()
        self._issued: dict[str, Issued] = {}

    @property
    def name(self) -> str:
        """The mount as operators write it: `vault-pki:<mount>`, with a role `…/<role>`."""
        return self._name

    def revisions(self) -> Iterator[Revision]:
        """Yield the present certificate, then those of older issuers that may still have to sign.

        Raises `SecretNotFound`, `AccessDenied`, `SourceUnavailable`, or `MaterialRefused` where
        Vault signs something else than was asked for.
        """
        now = self._clock()
        mount = self._issuers.read(now)
        self._take_up(mount, now)
        self._issued = {
            issuer.id: self._issued[issuer.id]
            for issuer in mount.issuers
            if issuer.id in self._issued
        }
        self._stages = observed(self._stages, mount, now)
        stages = told(self._stages, mount, now, self._distribute)
        for stage in stages if self._kind.is_ca else stages[:1]:
            # What was before the last one told is known, and does not matter; or it is not known.
            is_first = stage is stages[-1] and stage is not self._stages[0]
            yield self._revision(stage, self._issued_by(stage.issuer, mount, now), is_first)

    def _take_up(self, mount: Mount, now: datetime) -> None:
        """Go on with what an earlier run left, if it fits; asked for once."""
        held, self._held = self._held, None
        try:
            bundle = held() if held else None
            if bundle is None:
                return
            issued = self._signing.take_up(bundle)
        except MaterialRefused as refused:
            _LOG.info("%s: what is published is not used again: %s", self._name, refused.message)
            return
        for issuer in mount.issuers:
            if issuer.issued(issued.certificate) and now < issued.certificate.not_after:
                self._issued[issuer.id] = issued

    def _issued_by(self, issuer: Issuer, mount: Mount, now: datetime) -> Issued:
        """Return a certificate of an issuer's, a new one where it is time.

        What an older issuer signed may be used up when he does not sign any more.
        """
        issued = self._issued.get(issuer.id)
        if issued and issued.lasts(now, issuer):
            return issued
        current = issuer.id == mount.current.id
        try:
            renewed = self._signing.sign(issuer, now, current=current, renewal=bool(issued))
        except CertagentError:
            if current or issued is None or now >= issued.certificate.not_after:
                raise
            return issued
        self._issued[issuer.id] = renewed
        return renewed

    def _revision(self, stage: Stage, issued: Issued, is_first: bool) -> Revision:
        """Compose the set: as istiod's files, or as a gateway's.

        The chain ends below the root: who does not have the root would not trust it from there,
        and it would be sent with every handshake.
        """
        certificate = issued.certificate.pem
        above = b"".join(each.pem for each in stage.issuer.intermediates)
        roots = b"".join(sorted(each.pem for each in stage.roots))
        raw = RawBundle(
            private_key=issued.private_key.pem,
            certificate=certificate if self._kind.is_ca else certificate + above,
            chain=certificate + above if self._kind.is_ca else b"",
            roots=roots,
        )
        digest = hashlib.sha256(certificate + above + roots).hexdigest()
        return Revision(
            f"sha256:{digest[:12]}",
            stage.since,
            lambda: raw,
            is_first=is_first,
            renewable_until=stage.issuer.not_after,
        )
