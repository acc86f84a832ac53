"""Name constraints: the cases of crypto/x509's own tests that matter here."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509

from certagent.material.names import violation

DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ip_network(text) if "/" in text else ip_address(text))


MATCHES = [
    (DNS("istiod.istio-system.svc"), DNS("svc")),
    (DNS("istiod.istio-system.svc"), DNS("ISTIO-system.svc")),
    (DNS("svc"), DNS("svc")),
    (DNS("a.svc"), DNS(".svc")),
    (DNS("a.svc"), DNS("")),
    (DNS("a.svc."), DNS("svc")),
    (URI("spiffe://cluster.local/ns/a/sa/b"), URI("cluster.local")),
    (URI("https://user@host.mesh.example:8443/x"), URI(".mesh.example")),
    (EMAIL("me@example.com"), EMAIL("example.com")),
    (EMAIL("me@Example.com"), EMAIL("me@example.com")),
    (ip("10.1.2.3"), ip("10.0.0.0/8")),
    (ip("fd00::1"), ip("fd00::/8")),
]
DIFFERS = [
    (DNS("istiod.istio-system.svc"), DNS("system.svc")),
    (DNS("svc"), DNS(".svc")),
    (DNS("svc"), DNS("a.svc")),
    (URI("spiffe://other.local/ns/a"), URI("cluster.local")),
    (URI("spiffe://cluster.local/ns/a"), URI(".cluster.local")),
    (URI("urn:uuid:0"), URI("cluster.local")),
    (EMAIL("you@example.com"), EMAIL("me@example.com")),
    (ip("192.0.2.1"), ip("10.0.0.0/8")),
    (ip("192.0.2.1"), ip("fd00::/8")),
]


@pytest.mark.parametrize(("name", "constraint"), MATCHES, ids=str)
def test_a_permitted_name_is_allowed_and_an_excluded_one_is_not(name, constraint):
    assert violation(x509.NameConstraints([constraint], None), [name]) is None
    assert violation(x509.NameConstraints(None, [constraint]), [name]) == name


@pytest.mark.parametrize(("name", "constraint"), DIFFERS, ids=str)
def test_a_name_that_is_not_permitted_is_refused_and_one_not_excluded_is_allowed(name, constraint):
    assert violation(x509.NameConstraints([constraint], None), [name]) == name
    assert violation(x509.NameConstraints(None, [constraint]), [name]) is None


def test_constraints_of_one_kind_say_nothing_about_names_of_another():
    constraints = x509.NameConstraints([DNS("svc")], None)

    assert violation(constraints, [URI("spiffe://cluster.local/ns/a"), ip("192.0.2.1")]) is None


def test_names_of_kinds_that_go_does_not_compare_are_passed_over():
    name = x509.DirectoryName(x509.Name([]))

    assert violation(x509.NameConstraints(None, [name]), [name]) is None


def test_one_of_several_permitted_is_enough_and_an_exclusion_wins():
    constraints = x509.NameConstraints([DNS("a"), DNS("b")], [DNS("x.b")])

    assert violation(constraints, [DNS("y.b"), DNS("a")]) is None
    assert violation(constraints, [DNS("a"), DNS("x.b")]) == DNS("x.b")
