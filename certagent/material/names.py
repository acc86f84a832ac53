"""Alternative names as Go's crypto/x509 reads them, and constrains them (RFC 5280, 4.2.1.10)."""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_USER = re.compile(r"(?:[A-Za-z0-9._:~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=<>\"-]*(?::[0-9]*)?")
_VISIBLE = re.compile(r"[!-~]+")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_LITERAL = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)\](?::[0-9]*)?")

KINDS = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)
"""The kinds that Go compares; constraints on others it ignores, or refuses when critical."""


MAX_COMPARISONS = 250_000
"""What Go compares at most (crypto/x509.maxConstraintComparisons): 1 MiB has room for billions."""


def too_many(constraints: x509.NameConstraints, names: Iterable[x509.GeneralName]) -> bool:
    """Tell whether Go gives up (CertificateInvalidError with TooManyConstraints)."""
    subtrees = (*(constraints.excluded_subtrees or ()), *(constraints.permitted_subtrees or ()))
    counts = Counter(map(type, subtrees))
    return sum(counts[type(name)] for name in names) > MAX_COMPARISONS


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


def readable(name: x509.GeneralName) -> bool:
    """Tell whether crypto/x509.parseSANExtension reads a name, instead of refusing all of it."""
    if isinstance(name, x509.UniformResourceIdentifier):
        return _is_url(name.value)
    return not (isinstance(name.value, IPv6Address) and name.value.ipv4_mapped)


def readable_constraint(name: x509.GeneralName) -> bool:
    """Tell the same of a name constraint (crypto/x509.parseNameConstraintsExtension)."""
    if isinstance(name, x509.IPAddress):
        network = name.value
        return not (isinstance(network, IPv6Network) and network.network_address.ipv4_mapped)
    if not isinstance(name, x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name):
        return True
    domain = name.value.rpartition("@")[2]
    if isinstance(name, x509.UniformResourceIdentifier) and _is_address(domain):
        return False
    labels = domain.removeprefix(".").split(".")
    return not domain or all(label and _VISIBLE.fullmatch(label) for label in labels)


def matchable(name: x509.GeneralName) -> bool:
    """Tell whether a client can have asked for a server of this name.

    Hosts as crypto/x509.validHostname reads them. A wildcard stands for the first label, as a
    whole, and has two labels after it at least (X509_check_host; Go would do with one).
    """
    if not isinstance(name, x509.DNSName):
        return isinstance(name, x509.IPAddress | x509.UniformResourceIdentifier) and bool(
            name.value
        )
    first, *rest = name.value.split(".")
    if first != "*":
        rest = [first, *rest]
    elif len(rest) < 2:  # noqa: PLR2004 - as the docstring says
        return False
    return all(_LABEL.fullmatch(label) for label in rest)


def _is_url(uri: str) -> bool:
    """Mirror net/url.Parse, which is stricter than urllib and laxer than RFC 3986."""
    address, _, fragment = uri.partition("#")
    if _CONTROL.search(address) or not _ESCAPED.fullmatch(fragment):
        return False
    scheme = _SCHEME.match(address)
    rest = address[scheme.end() if scheme else 0 :].partition("?")[0]
    if scheme and not rest.startswith("/"):
        return True  # opaque, like the name of a URN
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, _, path = rest[2:].partition("/")
        return _is_authority(authority) and bool(_ESCAPED.fullmatch(path))
    return ":" not in rest.partition("/")[0] and bool(_ESCAPED.fullmatch(rest))


def _is_authority(text: str) -> bool:
    """Mirror net/url.parseAuthority, and crypto/x509.domainNameValid of the host."""
    user, _, host = text.rpartition("@")
    literal = _LITERAL.fullmatch(host)
    if literal:
        if not _is_address(literal[1]):
            return False
    elif not _HOST.fullmatch(host) or (host and not all(host.split("."))):
        return False
    return bool(_USER.fullmatch(user))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


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
