"""Name constraints, as Go's crypto/x509 applies them (RFC 5280, 4.2.1.10)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)
"""The kinds that Go compares; constraints on others it ignores, or refuses when critical."""


def violation(
    constraints: x509.NameConstraints, names: Iterable[x509.GeneralName]
) -> x509.GeneralName | None:
    """Return the first of `names` that a CA with these constraints may not sign for, or None.

    Mirrors crypto/x509.checkNameConstraints: a name must match no exclusion of its kind and, where
    its kind is among the permitted, one of those.
    """
    for name in names:
        if not isinstance(name, KINDS):
            continue
        excluded = [each for each in constraints.excluded_subtrees or () if _alike(each, name)]
        permitted = [each for each in constraints.permitted_subtrees or () if _alike(each, name)]
        if any(_matches(name, each) for each in excluded):
            return name
        if permitted and not any(_matches(name, each) for each in permitted):
            return name
    return None


def _alike(constraint: x509.GeneralName, name: x509.GeneralName) -> bool:
    return type(constraint) is type(name)


def _matches(name: x509.GeneralName, constraint: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress):
        network = constraint.value
        return isinstance(network, IPv4Network | IPv6Network) and name.value in network
    if isinstance(name, x509.UniformResourceIdentifier):
        return _in_domain(_host(name.value), constraint.value)
    if isinstance(name, x509.RFC822Name):
        return _mailbox_matches(name.value, constraint.value)
    return _in_domain(name.value, constraint.value)


def _host(uri: str) -> str:
    """Return the host of a URI, without a user before it and a port after it."""
    authority = uri.partition("://")[2].partition("/")[0]
    return authority.rpartition("@")[2].partition(":")[0]


def _mailbox_matches(mailbox: str, constraint: str) -> bool:
    """Mirror crypto/x509.matchEmailConstraint."""
    local, _, host = mailbox.rpartition("@")
    wanted_local, at, wanted_host = constraint.rpartition("@")
    if at:
        return (local, host.lower()) == (wanted_local, wanted_host.lower())
    return _in_domain(host, constraint)


def _in_domain(domain: str, constraint: str) -> bool:
    """Mirror crypto/x509.matchDomainConstraint: by labels from the right, regardless of case.

    An empty constraint matches everything; one with a leading dot asks for a label more.
    """
    if not constraint:
        return True
    labels = domain.lower().rstrip(".").split(".")
    wanted = constraint.lower().removeprefix(".").split(".")
    if len(labels) < len(wanted) + constraint.startswith("."):
        return False
    return labels[-len(wanted) :] == wanted
