"""What a PKI engine's answers mean, and what to do about them.

The texts that are looked for are those of Vault's builtin/logical/pki (cert_util.go,
issuing/sign_cert.go), which OpenBao shares; those of OpenBao 2.7 were seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.errors import AccessDenied, CertagentError, SecretNotFound, SourceUnavailable
from certagent.sources.vault.client import VaultRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_FOUND = 404
_DENIED = frozenset({401, 403})

_CAUSES = {
    "beyond the expiration of the ca": (
        "The issuer expires sooner than that: replace it, or ask for a shorter ttl."
    ),
    "max path length": (
        "The issuer may sign leafs alone: use one whose max_path_length leaves room for a CA."
    ),
    "requested usage": (
        "The issuer may not issue certificates: give it the usage issuing-certificates, or make\n"
        "another one the default."
    ),
    "role requires": (
        "Set keyType to what the role asks for, or the role's key_type and key_bits to this."
    ),
    "common_name field is required": (
        "Set require_cn=false on the role; or give commonName, or a DNS name of 64 characters at"
        " most."
    ),
    "this role": (
        "Correct commonName, dnsNames, uriSans or ipSans; or allow the name in the role:\n"
        "allowed_domains with allow_subdomains or allow_bare_domains, allowed_uri_sans,"
        " allow_ip_sans."
    ),
}


def of_reading(refused: VaultRefused, mount: str, path: str, capability: str) -> CertagentError:
    """Return what a refusal to tell about the issuers means."""
    if refused.status in _DENIED:
        return AccessDenied(
            f"Vault refused to {capability} {mount}/{path} ({refused.answer}).",
            hint=f'A policy of the login must allow "{capability}" on "{mount}/{path}"; Vault'
            " answers so\nalso where there is no mount of this name.",
        )
    return _no_such_engine(refused, mount)


def of_signing(error: VaultRefused | SourceUnavailable, mount: str, path: str) -> CertagentError:
    """Return what a refusal to sign means; a failure of another kind stays what it is."""
    answer = error.answer if isinstance(error, VaultRefused) else error.message
    hint = next((hint for text, hint in _CAUSES.items() if text in answer.lower()), "")
    if isinstance(error, SourceUnavailable):
        # Some refusals come as 500.
        return AccessDenied(answer, hint=hint) if hint else error
    if error.status in _DENIED:
        return AccessDenied(
            f"Vault refused to sign at {mount}/{path} ({answer}).",
            hint=f'A policy of the login must allow "update" on "{mount}/{path}".',
        )
    if error.status == _NOT_FOUND:
        return _no_such_engine(error, mount)
    if "unknown role" in answer:
        return SecretNotFound(
            f"There is no role of that name in the mount {mount!r} ({answer}).",
            hint=f"Correct the source's role, or create it: `vault write {mount}/roles/…`.",
        )
    hint = hint or "Its own log tells more; see what the role and the issuer allow."
    return AccessDenied(f"Vault will not sign at {mount}/{path} ({answer}).", hint=hint)


def another_engine(mount: str, engine: str) -> SecretNotFound:
    """Return the error for a mount that issues nothing."""
    return SecretNotFound(
        f"The mount {mount!r} is of type {engine[:40]!r}, not pki.",
        hint="Correct the source's mount.",
    )


def no_issuer(
    mount: str, wanted: str, listed: Mapping[str, Mapping[str, object]] | None = None
) -> SecretNotFound:
    """Return the error for a mount without the issuer that is to sign."""
    if not listed:
        return SecretNotFound(
            f"The mount {mount!r} has no issuer: nothing can be signed there.",
            hint=f"Make its root (`vault write {mount}/root/generate/internal …`), or import an"
            f" intermediate\nwith its key (`vault write {mount}/issuers/import/bundle …`).",
        )
    names = ", ".join(str(info.get("issuer_name") or id_) for id_, info in listed.items())
    return SecretNotFound(
        f"The mount {mount!r} has no {wanted!r} issuer; there are: {names[:200]}.",
        hint="Correct the source's issuer (a name or an id), or make one the default:"
        f"\n`vault write {mount}/config/issuers default=…`.",
    )


def malformed(key: str) -> SourceUnavailable:
    """Return the error for an answer that is not a PKI engine's."""
    return SourceUnavailable(
        f"Vault's answer has no usable {key!r}, so it is not a PKI engine's.",
        hint="Check the source's mount, and that vault.address is Vault's own.",
    )


def _no_such_engine(refused: VaultRefused, mount: str) -> CertagentError:
    if refused.status == _NOT_FOUND:
        return SecretNotFound(
            f"There is no PKI engine at {mount!r} ({refused.answer}).",
            hint="Check the source's mount: `vault secrets list` shows them all.",
        )
    return SourceUnavailable(
        f"Vault could not tell about {mount!r} ({refused.answer}).",
        hint="Its own log tells why; the request is tried again.",
    )
