"""The issuers of a PKI mount, as anybody may read them: certificates, names, and the default."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509

from certagent.errors import SecretNotFound
from certagent.material import pem
from certagent.material.certificates import Certificate, Unparseable
from certagent.material.chains import issued, signed
from certagent.sources.vault.pki.refusals import malformed, no_issuer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from certagent.sources.vault.pki.engine import Engine

DEFAULT = "default"
"""The name by which the mount's default issuer can be asked for; no issuer may have it."""

_LOG = logging.getLogger("certagent.vault")


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA of the mount that has a key there; `chain` is its own certificate and those above it.

    `ways` lead from what it issues up to a root. Where a CA was cross-signed, or a root was renewed
    with its key, there are several, and one of them suffices.
    """

    id: str
    name: str
    chain: tuple[Certificate, ...]
    ways: tuple[tuple[Certificate, ...], ...]

    @classmethod
    def of(cls, id_: str, name: str, chain: tuple[Certificate, ...]) -> Issuer:
        """Find the ways, from each certificate that the CA has for its key; none passes one twice.

        CAs that have signed each other would lead in circles.
        """
        own = chain[0]
        ways: list[tuple[Certificate, ...]] = [
            (each,)
            for each in chain
            if each.subject_name == own.subject_name and each.public_key_info == own.public_key_info
        ]
        complete = []
        for way in ways:
            if issued(way[-1], way[-1]):
                complete.append(way)
                continue
            keys = {each.public_key_info for each in way}
            ways += [
                (*way, each)
                for each in chain
                if each.public_key_info not in keys and issued(each, way[-1])
            ]
        return cls(id_, name, chain, tuple(complete))

    @property
    def shown(self) -> str:
        """How an operator knows it."""
        return f"{self.name or self.id} ({self.chain[0].subject})"

    def without_renewed(self, by: datetime) -> Issuer:
        """Return it without the roots that end by then, and were renewed with name and key.

        Envoy takes the first of a name, and refuses all below it once that one has expired. The
        renewed one verifies whatever the old one does.
        """
        lasting = {_who(way[-1]) for way in self.ways if way[-1].not_after > by}
        ways = (way for way in self.ways if way[-1].not_after > by or _who(way[-1]) not in lasting)
        return replace(self, ways=tuple(ways))

    @property
    def roots(self) -> tuple[Certificate, ...]:
        """The self-signed ends of its chain."""
        return tuple(self.arrivals)

    @property
    def intermediates(self) -> tuple[Certificate, ...]:
        """What stands between that which it issues and the roots: itself first, if it is none."""
        needed = {each for way in self.ways for each in way[:-1]}
        return tuple(each for each in self.chain if each in needed)

    @property
    def arrivals(self) -> dict[Certificate, datetime]:
        """The earliest time at which it can have had each of its roots.

        Vault does not tell when that was. For an issuer that was generated there it is some 30
        seconds before (the default of not_before_duration), which `rotation.slack` covers.
        """
        found: dict[Certificate, datetime] = {}
        for way in self.ways:
            begin = max(each.not_before for each in way)
            found[way[-1]] = min(begin, found.get(way[-1], begin))
        return found

    @property
    def since(self) -> datetime:
        """The earliest time at which it can have come into the mount."""
        return min(self.arrivals.values())

    @property
    def not_after(self) -> datetime:
        """Until when it can issue: to the end of the way that lasts longest."""
        return max(min(each.not_after for each in way) for way in self.ways)

    @property
    def may_issue_cas(self) -> bool:
        """Say whether its own certificate allows a CA below it."""
        constraints = self.chain[0].extension(x509.BasicConstraints)
        return constraints is None or constraints.path_length != 0

    def issued(self, certificate: Certificate) -> bool:
        """Say whether it signed a certificate."""
        return signed(certificate, self.chain[0])


@dataclass(frozen=True, slots=True)
class Mount:
    """What a mount is able to issue with: `current` is the default, or the one that was chosen."""

    issuers: tuple[Issuer, ...]
    current: Issuer

    @property
    def roots(self) -> tuple[Certificate, ...]:
        """The roots of all issuers, each once, in no order that means anything."""
        return tuple(dict.fromkeys(root for issuer in self.issuers for root in issuer.roots))

    def has(self, issuer: Issuer) -> bool:
        """Say whether an issuer is still there."""
        return any(each.id == issuer.id for each in self.issuers)


class Issuers:
    """Reads the mount: one request while nothing changes, and one more for each issuer.

    `wanted` is the name or id of the issuer to ask; `of_cas`: those that issue leafs alone do not
    count. A root that was renewed goes `notice` before its end.
    """

    def __init__(
        self,
        engine: Engine,
        wanted: str = DEFAULT,
        *,
        of_cas: bool = False,
        notice: timedelta = timedelta(),
    ) -> None:
        self._engine = engine
        self._wanted = wanted
        self._of_cas = of_cas
        self._notice = notice
        self._listed: frozenset[str] = frozenset()
        self._issuers: dict[str, Issuer] = {}
        self._warned: set[str] = set()

    def read(self, now: datetime) -> Mount:
        """Return the mount as it is now.

        One that has expired, or whose key lies elsewhere, issues nothing and does not count: its
        root is trusted by nobody, and no certificate of an older time is asked of it. One
        without a root can be the current one alone. Raises what `Source.revisions` raises.
        """
        listed = self._engine.issuers()
        if listed.keys() != self._listed:
            # Any of the chains may be another now: an imported root completes that of others.
            self._issuers, self._listed = {}, frozenset()
        current = self._current(listed)
        named = {id_: info for id_, info in listed.items() if info.get("key_id") or id_ == current}
        for id_, info in named.items():
            if id_ not in self._issuers:
                self._issuers[id_] = self._issuer(id_, str(info.get("issuer_name") or ""))
        self._listed = frozenset(listed)
        issuers = [self._issuers[id_].without_renewed(now + self._notice) for id_ in named]
        return self._mount(issuers, current, now)

    def _mount(self, issuers: Sequence[Issuer], current: str, now: datetime) -> Mount:
        asked = next(each for each in issuers if each.id == current)
        if not asked.roots:
            raise self._rootless(asked)
        for issuer in issuers:
            if not issuer.roots and issuer.id not in self._warned:
                self._warned.add(issuer.id)
                _LOG.warning("%s", self._rootless(issuer).message)
        able = (
            each
            for each in issuers
            if each.roots and each.not_after > now and (each.may_issue_cas or not self._of_cas)
        )
        return Mount(tuple(dict.fromkeys((*able, asked))), asked)

    def _current(self, listed: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the id of the issuer that is to be asked."""
        for id_, info in listed.items():
            names = (id_, info.get("issuer_name"), DEFAULT if info.get("is_default") else id_)
            if self._wanted in names:
                return id_
        raise no_issuer(self._engine.mount, self._wanted, listed)

    def _issuer(self, id_: str, name: str) -> Issuer:
        data = self._engine.issuer(id_)
        above = data.get("ca_chain") or []
        if not isinstance(above, list):
            raise malformed("ca_chain")
        texts = [data.get("certificate"), *above]
        return Issuer.of(id_, name, certificates(texts))

    def _rootless(self, issuer: Issuer) -> SecretNotFound:
        last = issuer.chain[-1]
        return SecretNotFound(
            f"The chain of the issuer {issuer.shown} in {self._engine.mount!r} has no root: it ends"
            f" below {last.issuer!r}.",
            hint="Import the root's certificate, and the chain is complete:"
            f" `vault write {self._engine.mount}/issuers/import/cert pem_bundle=@root.pem`.",
        )


def _who(root: Certificate) -> tuple[object, bytes]:
    return root.subject_name, root.public_key_info


def certificates(texts: Sequence[object]) -> tuple[Certificate, ...]:
    """Read certificates in PEM, each once; raises `SourceUnavailable` for what is none."""
    found: dict[Certificate, None] = {}
    for text in texts:
        if not isinstance(text, str):
            raise malformed("certificate")
        blocks, faults = pem.decode(text.encode("utf-8", "surrogatepass"), "chain")
        if faults or not blocks:
            raise malformed("certificate")
        try:
            found |= {Certificate.load(block.der): None for block in blocks}
        except Unparseable as fault:
            raise malformed("certificate") from fault
    return tuple(found)
