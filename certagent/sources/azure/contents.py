"""What the secrets of a bundle hold: a part each, all parts as JSON, or a certificate object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certagent.material.kinds import PartNames
from certagent.material.objects import certificate_object, json_fields
from certagent.material.raw import RawBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from certagent.config.model import AzureKeyVaultSource
    from certagent.material.kinds import Kind


@dataclass(frozen=True, slots=True)
class Content:
    """What one version of a secret holds."""

    value: str = field(repr=False)
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """Which secrets a bundle is read from, and what is made of them.

    `optional` are those that need not be there, `private` those that hold a private key. `take`
    gets the contents by secret, and raises `MaterialRefused`.
    """

    secrets: tuple[str, ...]
    optional: frozenset[str]
    private: frozenset[str]
    take: Callable[[Mapping[str, Content]], RawBundle]


def form_of(config: AzureKeyVaultSource, kind: Kind) -> Form:
    """Return the form that a configuration asks for."""
    if config.certificate:
        return _certificate_form(config.certificate, config.roots or "", kind)
    parts = part_names(config, kind)
    return _json_form(config.secret, parts) if config.secret else _secrets_form(parts)


def part_names(config: AzureKeyVaultSource, kind: Kind) -> PartNames:
    """Return what the parts are called: the fields of one secret, or a secret each.

    Secrets are called as Vault's fields are, but for the dashes. Optional parts are read only where
    they are named: looking for one costs a request at each poll, and a vault has no folders: a
    gateway's bundle would take the mesh's `ca-cert` for its own.
    """
    if config.secret:
        return kind.named({})
    given = config.secrets.given() if config.secrets else {}
    defaults = {
        part: name.replace("_", "-")
        for part, name in kind.fields.items()
        if part not in kind.optional
    }
    names = {**defaults, **given}
    return PartNames(names, frozenset(kind.named(given).optional & names.keys()))


def _secrets_form(parts: PartNames) -> Form:
    """Return the form of a secret for each part."""

    def take(contents: Mapping[str, Content]) -> RawBundle:
        return parts.take({name: content.value for name, content in contents.items()})

    return Form(
        tuple(dict.fromkeys(parts.names.values())),
        frozenset(parts.names[part] for part in parts.optional),
        frozenset({parts.names["private_key"]}),
        take,
    )


def _json_form(secret: str, parts: PartNames) -> Form:
    """Return the form of one JSON object, with the same fields as a secret of Vault's."""

    def take(contents: Mapping[str, Content]) -> RawBundle:
        text = contents[secret].value
        return parts.take(json_fields(text, secret, parts.names["private_key"]))

    return Form((secret,), frozenset(), frozenset({secret}), take)


def _certificate_form(certificate: str, roots: str, kind: Kind) -> Form:
    """Return the form of a certificate object, whose roots are in a secret of their own."""

    def take(contents: Mapping[str, Content]) -> RawBundle:
        content = contents[certificate]
        found = certificate_object(content.value, content.content_type, certificate)
        every = found.certificate + found.rest
        # istiod wants the CA's certificate alone, and again in its chain; a gateway's file has all.
        own, chain = (found.certificate, every) if kind.is_ca else (every, b"")
        return RawBundle(
            private_key=found.private_key,
            certificate=own,
            chain=chain,
            roots=contents[roots].value.encode("utf-8", "surrogatepass") if roots else b"",
        )

    secrets = (certificate, roots) if roots else (certificate,)
    return Form(secrets, frozenset(), frozenset({certificate}), take)
