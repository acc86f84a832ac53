"""What a certificate that somebody else issues must be: the order, and whether what came is it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certagent.errors import MaterialRefused
from certagent.material.finding import Finding, Severity

if TYPE_CHECKING:
    from certagent.material.certificates import Certificate
    from certagent.material.issuing import KeyType, PrivateKey

BACKDATING = timedelta(hours=1)
"""By how much a certificate may begin before it was issued, for those whose clocks are behind:
Vault's default is 30 seconds (not_before_duration)."""

_CODE = "issued-otherwise"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A certificate as it was asked for; `path_length` is None for a leaf.

    `dns_names`, `uris` and `addresses` are all its alternative names, `lifetime` how long it is to
    hold from the moment at which it is issued.
    """

    key_type: KeyType
    common_name: str
    lifetime: timedelta
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    path_length: int | None = None

    def csr(self, key: PrivateKey) -> str:
        """Return the PKCS #10 request in PEM, signed by the key: proof that it is ours."""
        attributes = (
            [x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)] if self.common_name else []
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
        if names := self._names():
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def require(self, certificate: Certificate) -> None:
        """Raise `MaterialRefused` unless the certificate is the one that was asked for.

        Of its key only the kind is looked at: that it is ours is for who has the key to say. One
        that holds for longer than was asked for is refused; how much shorter it may be is a matter
        of the issuer's limits.
        """
        different = self._difference(certificate)
        if different:
            subject, fingerprint = certificate.subject, certificate.fingerprint
            hint = "See what the issuing role imposes, and correct it or what is asked for."
            raise MaterialRefused(
                different,
                (
                    Finding(
                        _CODE, Severity.ERROR, "certificate", different, hint, subject, fingerprint
                    ),
                ),
                hint=hint,
            )

    def _difference(self, certificate: Certificate) -> str:
        found = certificate.x509
        common_names = [
            str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        if not self.key_type.is_kind_of(found.public_key()):
            return f"The certificate is for another kind of key than {self.key_type}."
        if common_names != [self.common_name] * bool(self.common_name):
            return f"The certificate's common name is {common_names}, not {self.common_name!r}."
        if certificate.not_after - certificate.not_before > self.lifetime + BACKDATING:
            until = f"{certificate.not_after:%FT%TZ}"
            return f"The certificate holds until {until}, longer than was asked for."
        return self._other_names(certificate) if self.path_length is None else self._ca(certificate)

    def _ca(self, certificate: Certificate) -> str:
        """Compare what makes a CA; an issuer may impose a shorter path, not a longer one."""
        constraints = certificate.extension(x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            return "The certificate is not a CA's."
        limit = constraints.path_length
        if limit is None or limit > (self.path_length or 0):
            return f"The certificate's path length is {limit}, not {self.path_length}."
        return ""

    def _other_names(self, certificate: Certificate) -> str:
        names = certificate.extension(x509.SubjectAlternativeName) or ()
        found = {_text(name) for name in names}
        asked = {_text(name) for name in self._names()}
        if found == asked:
            return ""
        shown = ", ".join(sorted(found)) or "none"
        return f"The certificate's names are {shown[:200]}, not {', '.join(sorted(asked))[:200]}."

    def _names(self) -> list[x509.GeneralName]:
        return [
            *(x509.DNSName(name) for name in self.dns_names),
            *(x509.UniformResourceIdentifier(uri) for uri in self.uris),
            *(x509.IPAddress(ipaddress.ip_address(each)) for each in self.addresses),
        ]


def _text(name: x509.GeneralName) -> str:
    """Return a name as it is compared and shown; DNS names know no case."""
    text = str(name.value)
    return text.lower() if isinstance(name, x509.DNSName) else text
