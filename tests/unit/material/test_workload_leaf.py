"""The structural rule against reality: workload certificates are signed, and a verifier is asked.

`verify` says that peers will take what a CA signs, without signing anything. Here each set signs a
workload certificate, and OpenSSL judges it with the chain and the roots that istiod would hand out.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from cryptography import x509

from certagent.errors import MaterialRefused
from certagent.material.bundle import KeyCertBundle
from certagent.material.verification import verify
from tests.support import material
from tests.support.material import ANY, CLIENT, NOW, SERVER, make_root

OPENSSL = shutil.which("openssl")

OTHER_KEY = x509.AuthorityKeyIdentifier(b"another key", None, None)
OTHER_SERIAL = x509.AuthorityKeyIdentifier(
    None, [x509.DirectoryName(make_root().certificate.issuer)], 1
)
DAY = material.timedelta(days=1)


def crossed(**knobs):
    """A middle CA under two roots, of which the first has `knobs`."""
    old, new = make_root(subject="CN=Old", **knobs), make_root(subject="CN=New")
    key = material.new_key()
    middle = old.middle(key=key)
    ca = new.middle(key=key).intermediate()
    return ca, {"chain": (ca, middle, ca.parent), "roots": (old, new)}


def turned(crossing):
    """The same with the other middle CA first in the chain."""
    ca, parts = crossing
    first, *others = parts["chain"]
    return ca, {**parts, "chain": (first, *reversed(others))}


def rooted(crossing, index: int):
    """The same with one of the roots alone."""
    ca, parts = crossing
    return ca, {**parts, "roots": (parts["roots"][index],)}


def plain(ca, **parts):
    return ca, parts


SETS = {
    "an intermediate": lambda: plain(make_root().intermediate()),
    "two intermediates": lambda: plain(make_root().middle().intermediate()),
    "a root that signs": lambda: plain(make_root()),
    "an intermediate as the root": lambda: plain(
        ca := make_root().middle().intermediate(), roots=(ca.parent,)
    ),
    "two roots, cross-signed": crossed,
    "two roots, the first of the chain expired": lambda: crossed(not_after=NOW - DAY),
    "two roots, the first of the chain too short": lambda: crossed(pathlen=0),
    "two roots, the second of the chain expired": lambda: turned(crossed(not_after=NOW - DAY)),
    "two roots, the first of the chain missing": lambda: rooted(crossed(), 1),
    "two roots, the second of the chain missing": lambda: rooted(crossed(), 0),
    "two roots of one name": lambda: plain(
        ca := make_root().intermediate(), roots=(ca.root, make_root())
    ),
    "two roots of one name without key identifiers": lambda: plain(
        ca := make_root(ski=False).intermediate(aki=False),
        roots=(make_root(ski=False, not_before=material.NOT_BEFORE - DAY), ca.root),
    ),
    "both purposes": lambda: plain(make_root().intermediate(eku=(SERVER, CLIENT))),
    "wrong order above ca-cert": lambda: plain(
        ca := make_root().middle().intermediate(), chain=(ca, ca.root, ca.parent)
    ),
    "root pathlen 0": lambda: plain(make_root(pathlen=0).intermediate()),
    "root pathlen 1": lambda: plain(make_root(pathlen=1).intermediate()),
    "middle pathlen 0": lambda: plain(make_root().middle(pathlen=0).intermediate()),
    "middle not a CA": lambda: plain(make_root().middle(ca=False).intermediate()),
    "middle without keyCertSign": lambda: plain(
        make_root().middle(key_usage=("crl_sign",)).intermediate()
    ),
    "middle expired": lambda: plain(make_root().middle(not_after=NOW - DAY).intermediate()),
    "middle for servers only": lambda: plain(make_root().middle(eku=(SERVER,)).intermediate()),
    "ca-cert not a CA": lambda: plain(make_root().intermediate(ca=False)),
    "ca-cert without keyCertSign": lambda: plain(
        make_root().intermediate(key_usage=("digital_signature",))
    ),
    "ca-cert for servers only": lambda: plain(make_root().intermediate(eku=(SERVER,))),
    "ca-cert for clients only": lambda: plain(make_root().intermediate(eku=(CLIENT,))),
    "ca-cert for any purpose": lambda: plain(make_root().intermediate(eku=(ANY,))),
    "ca-cert not valid yet": lambda: plain(make_root().intermediate(not_before=NOW + DAY)),
    "ca-cert names another key of its issuer": lambda: plain(
        make_root().intermediate(aki=False, extensions=((OTHER_KEY, False),))
    ),
    "ca-cert names another serial number of its issuer": lambda: plain(
        make_root().intermediate(aki=False, extensions=((OTHER_SERIAL, False),))
    ),
    "chain empty": lambda: plain(make_root().intermediate(), chain=()),
    "chain of the root alone": lambda: plain(ca := make_root().intermediate(), chain=(ca.root,)),
    "chain of the intermediate before": lambda: plain(
        ca := make_root().intermediate(), chain=(ca.root.intermediate(), ca.root)
    ),
    "middle missing": lambda: plain(ca := make_root().middle().intermediate(), chain=(ca, ca.root)),
    "another root": lambda: plain(make_root().intermediate(), roots=(make_root(),)),
}


def accepted(raw) -> bool:
    try:
        verify(KeyCertBundle.decode(raw), NOW)
    except MaterialRefused:
        return False
    return True


def taken_by_openssl(leaf, raw, folder, purpose: str) -> bool:
    for name, data in {"leaf": leaf.pem, "chain": raw.chain, "roots": raw.roots}.items():
        (folder / name).write_bytes(data)
    # Only what the set brings is trusted, as of NOW, and an intermediate may be an anchor (Go).
    command = [OPENSSL, "verify", "-no-CApath", "-no-CAstore", "-partial_chain", "-auth_level", "0"]
    command += ["-attime", str(int(NOW.timestamp())), "-purpose", purpose]
    command += ["-CAfile", folder / "roots"]
    command += ["-untrusted", folder / "chain"] if raw.chain else []
    done = subprocess.run([*command, folder / "leaf"], capture_output=True, timeout=30, check=False)
    return done.returncode == 0


@pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")
@pytest.mark.parametrize("row", SETS)
def test_a_set_is_accepted_exactly_when_its_workloads_are(row, tmp_path):
    ca, parts = SETS[row]()
    # The roots as they would be published: sorted.
    raw = KeyCertBundle.decode(ca.raw(**parts)).canonical()
    leaf = ca.workload_leaf()

    taken = [taken_by_openssl(leaf, raw, tmp_path, side) for side in ("sslserver", "sslclient")]

    assert accepted(raw) == all(taken)
