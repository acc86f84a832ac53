"""From a new key to a certificate for it: what is asked of Vault, and whether what comes is it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from certagent.config.model import seconds
from certagent.config.pki import LONGEST_COMMON_NAME
from certagent.errors import AccessDenied, SourceUnavailable
from certagent.material.issuing import KeyType, pkcs8
from certagent.material.keys import PrivateKey
from certagent.material.request import CertificateRequest
from certagent.sources.vault.pki.issuers import certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certagent.config.model import VaultPKISource as VaultPKIConfig
    from certagent.material.bundle import KeyCertBundle
    from certagent.material.certificates import Certificate
    from certagent.material.issuing import PrivateKey as GeneratedKey
    from certagent.sources.vault.pki.engine import Engine
    from certagent.sources.vault.pki.issuers import Issuer

_LOG = logging.getLogger("certagent.vault")

_EARLIEST, _LATEST = 0.6, 2 / 3
"""The part of its lifetime after which a certificate is renewed: between these, drawn at random, so
that replicas that started together do not renew together."""

_ROUNDING = timedelta(seconds=2)
_CLOCKS = timedelta(minutes=5)
"""By how much Vault's clock may differ from ours, and from those of the peers of a mesh."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and the key that it was issued for, and when another is to be asked for."""

    private_key: PrivateKey
    certificate: Certificate
    renew_at: datetime

    def lasts(self, now: datetime, issuer: Issuer) -> bool:
        """Say whether it need not be renewed yet.

        One that lives as long as its issuer would be replaced by one that lives no longer.
        """
        ends = self.certificate.not_after
        return now < self.renew_at or now < ends >= issuer.not_after - _CLOCKS


class Signing:
    """Asks for certificates as one configuration says.

    Vault is to take nothing but the key from the request, where it can be told so: for an
    intermediate everything else comes from parameters (`use_csr_values` false), so a signature
    never covers what the request alone says. A role may be told to take its names from the request
    (`use_csr_sans`, the default), so a leaf's names are in both. `random` returns a number in
    [0, 1).
    """

    def __init__(self, engine: Engine, config: VaultPKIConfig, random: Callable[[], float]) -> None:
        self._engine = engine
        self._config = config
        self._random = random
        self._warned = False
        short = (name for name in config.dns_names if len(name) <= LONGEST_COMMON_NAME)
        self._request = CertificateRequest(
            key_type=KeyType(config.key_type.replace("-p", "").replace("-", "")),
            common_name=config.common_name or next(short, ""),
            lifetime=timedelta(seconds=seconds(config.ttl)),
            dns_names=config.dns_names,
            uris=config.uri_sans,
            addresses=config.ip_sans,
            path_length=None if config.role else config.path_length,
        )

    def take_up(self, bundle: KeyCertBundle) -> Issued:
        """Return what was issued before; raises `MaterialRefused` where another is wanted now."""
        self._request.require(bundle.certificate)
        return self._issued(bundle.private_key, bundle.certificate)

    def sign(self, issuer: Issuer, now: datetime, *, current: bool, renewal: bool) -> Issued:
        """Have a new key's certificate signed by an issuer; one request.

        `current`: it is the one that the configuration names. `renewal`: better one that lives
        shorter than was asked for than none. Raises `AccessDenied`, `SecretNotFound`,
        `SourceUnavailable`, or `MaterialRefused` for another certificate than was asked for. An
        older issuer, whom the new one relieves, signs until his own end at most.
        """
        request = self._request
        if request.path_length is not None:
            if current and (error := self.expires_sooner(issuer, now)):
                self._accept_only(error, renewal=renewal)
            left = issuer.not_after - now
            request = replace(request, lifetime=min(left, request.lifetime))
        key = request.key_type.generate()
        body = self._body(request, key)
        answer = self._engine.sign(self.path(issuer, current=current), body)
        certificate = certificates([answer.get("certificate")])[0]
        private_key = PrivateKey.load("PRIVATE KEY", pkcs8(key))
        if certificate.public_key_info != private_key.public_key_info:
            raise SourceUnavailable(
                "Vault's answer holds a certificate for another key than ours.",
                hint="Something between here and Vault mixes answers up: see vault.address.",
            )
        request.require(certificate)
        if not issuer.issued(certificate):
            raise self._other_issuer(issuer, certificate)
        if certificate.not_after - certificate.not_before + _ROUNDING < request.lifetime:
            self._note_cut(certificate, issuer, renewal=renewal)
        return self._issued(private_key, certificate)

    def _issued(self, private_key: PrivateKey, certificate: Certificate) -> Issued:
        """Count the lifetime back from its end: Vault dates its beginning back by 30 seconds."""
        lifetime = min(self._request.lifetime, certificate.not_after - certificate.not_before)
        after = _EARLIEST + (_LATEST - _EARLIEST) * self._random()
        return Issued(private_key, certificate, certificate.not_after - lifetime * (1 - after))

    def path(self, issuer: Issuer, *, current: bool) -> str:
        """Return the endpoint below the mount; without a configured issuer the default one's."""
        role = self._config.role
        verb = f"sign/{role}" if role else "sign-intermediate"
        if current and not self._config.issuer:
            return verb if role else f"root/{verb}"
        return f"issuer/{self._config.issuer if current else issuer.id}/{verb}"

    @staticmethod
    def _body(request: CertificateRequest, key: GeneratedKey) -> dict[str, object]:
        body: dict[str, object] = {
            "csr": request.csr(key),
            "common_name": request.common_name,
            "ttl": f"{request.lifetime.total_seconds():.0f}s",
            "exclude_cn_from_sans": True,
            "format": "pem",
        }
        if request.path_length is not None:
            return body | {
                "use_csr_values": False,
                "max_path_length": request.path_length,
                # By default 30 s. It is used at once, by all who meet what it signs.
                "not_before_duration": f"{_CLOCKS.total_seconds():.0f}s",
            }
        return body | {
            "alt_names": ",".join(request.dns_names),
            "uri_sans": ",".join(request.uris),
            "ip_sans": ",".join(request.addresses),
        }

    def expires_sooner(self, issuer: Issuer, now: datetime) -> AccessDenied | None:
        """Return the error for an issuer that an intermediate would outlive, if it is one.

        Vault signs it (seen with OpenBao 2.7), and peers refuse what is below an expired issuer.
        For leafs its leaf_not_after_behavior decides.
        """
        request = self._request
        if request.path_length is None or issuer.not_after - now >= request.lifetime:
            return None
        return AccessDenied(
            f"The issuer {issuer.shown} of {self._engine.mount!r} expires at"
            f" {issuer.not_after:%FT%TZ}, sooner than a CA with a ttl of {self._config.ttl}.",
            hint="Add a new issuer to the mount, and make it the default; or shorten the ttl.",
        )

    def _other_issuer(self, issuer: Issuer, certificate: Certificate) -> SourceUnavailable:
        if self._config.role and not self._config.issuer:
            hint = "If the role names an issuer of its own (issuer_ref), name it as the source's"
            hint += " issuer too;\nif the default issuer was changed just now, nothing is to do."
        else:
            hint = "The issuer was changed just now: the request is made again."
        return SourceUnavailable(
            f"Vault signed with {certificate.issuer!r}, not with the issuer {issuer.shown}.",
            hint=hint,
        )

    def _note_cut(self, certificate: Certificate, issuer: Issuer, *, renewal: bool) -> None:
        """Tell that Vault cut the lifetime, as limits of mounts and roles do without a word.

        An operator who configures a ttl that cannot be had is told so at once; later, a shorter
        certificate is better than one that expires. So is one that is cut to its issuer's end
        (leaf_not_after_behavior=truncate): somebody asked for that.
        """
        given = certificate.not_after - certificate.not_before
        cut = AccessDenied(
            f"Vault gave {given} where a ttl of {self._config.ttl} was asked for.",
            hint="Shorten the ttl; or raise the limit: max_ttl of the role, or max-lease-ttl of"
            f"\n{self._engine.mount!r} (`vault secrets tune`), and of the whole server.",
        )
        is_wanted = certificate.not_after >= issuer.not_after - _CLOCKS
        self._accept_only(cut, renewal=renewal or is_wanted)

    def _accept_only(self, cut: AccessDenied, *, renewal: bool) -> None:
        """Raise why a certificate is shorter than was asked for; of a renewal tell it, once."""
        if not renewal:
            raise cut
        if not self._warned:
            self._warned = True
            _LOG.warning("%s %s", cut.message, cut.hint)
