"""What each code of a finding means: the list that runbooks, metrics and docs refer to.

A code is never given another meaning. Nothing imports this at run time.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ERRORS: Mapping[str, str] = MappingProxyType(
    {
        # A part as a whole
        "part-missing": "The store has no such field.",
        "part-not-text": "The field is neither text nor bytes.",
        "part-empty": "The part is empty.",
        "part-too-large": "The part is larger than 1 MiB.",
        "json-unreadable": "The secret that is to hold all parts is no JSON object.",
        "object-unreadable": "A certificate object is neither PKCS #12 without a password nor PEM.",
        # PEM, as Go reads it
        "pem-missing": "There is no PEM block; perhaps it is DER.",
        "pem-encoded-twice": "It is base64 of PEM.",
        "pem-escaped": "Newlines are written as backslash and n.",
        "pem-glued": "END and BEGIN share a line; Go loses both blocks.",
        "pem-indented": "Something stands before BEGIN on its line.",
        "pem-truncated": "A block lacks its beginning or its end.",
        "pem-malformed": "BEGIN and END do not fit, or there is no base64 between them.",
        "pem-headers": "A block has headers; Go passes over it, or cannot read it.",
        "pem-label": "A block has another label than its part asks for.",
        "too-many-blocks": "A part has more than 100 blocks.",
        "key-in-public-part": "A private key lies in a part that everybody may read.",
        # The key
        "key-encrypted": "The key is encrypted, and its reader has no passphrase.",
        "key-ec-parameters": "EC PARAMETERS come before the key.",
        "key-label": "The key's label is no key's, or does not fit its content.",
        "key-unreadable": "The key is damaged, or of a kind that Go cannot sign with.",
        "key-form": "A key, also a certificate's, is written in a form that Go cannot read.",
        "key-mismatch": "The key does not belong to the certificate.",
        # Certificates
        "certificate-unreadable": "A certificate is damaged, or of a kind that Go cannot read.",
        "certificate-expired": "A certificate on the path has expired.",
        "certificate-not-yet-valid": "A certificate on the path is not valid yet.",
        "certificate-revoked": "A certificate on the path is revoked by its issuer's list.",
        "not-a-ca": "A certificate on the path is not a CA.",
        "key-usage-lacks-cert-sign": "A certificate on the path may not sign certificates.",
        "extended-key-usage": "extendedKeyUsage lacks serverAuth or clientAuth, and needs it.",
        "unhandled-critical-extension": "A critical extension that Go cannot read.",
        "path-length": "pathlen is too small for the CAs below it.",
        "leaf-path-length": "pathlen is too small for the certificates of workloads.",
        "name-constraints-violated": "A CA may not sign for a name of a CA below it.",
        "name-constraints-too-many": "More names and constraints than Go compares.",
        "policy-required": "requireExplicitPolicy, which nothing below satisfies.",
        "insecure-signature": "A signature with MD5, SHA-1 or an algorithm that Go lacks.",
        "key-too-small": "An RSA key of less than 1024 bits; 2048 where Envoy is to load it.",
        # A certificate of kind tls
        "key-unsupported": "Envoy does not load a key of this kind.",
        "key-usage-lacks-digital-signature": "keyUsage does not let the key sign a handshake.",
        "must-staple": "It asks for an OCSP staple, which Envoy does not have.",
        "san-missing": "A server's certificate has no name that a client can ask for.",
        # How the parts work together
        "unknown-authority": "An issuer on the way to a root is missing.",
        "signature-mismatch": "An issuer of that name is there, and did not sign.",
        "misleading-path": "A good path exists; a verifier that never turns back takes a bad one.",
        "key-id-mismatch": "A certificate names another key than that of the CA that signed it.",
        "too-many-paths": "Peers give up before they find a path.",
        "chain-lacks-certificate": "The chain does not hold the CA certificate.",
        "chain-order": "The chain does not begin with the CA certificate.",
        "root-not-a-ca": "A certificate among the roots is not a CA.",
        "no-valid-root": "Roots are there, and none of them is valid now.",
        "root-not-pinned": "A root is not among those that trust.roots lists.",
        # Issued on request
        "issued-otherwise": "The issuer signed another certificate than was asked for.",
        # Revocation lists
        "crl-unreadable": "A list is damaged.",
        "crl-missing": "A signer of the chain, or its root, has no list.",
        "crl-too-many": "More lists and signers of one name than are checked.",
        "crl-signer": "A signer may not sign lists.",
        "crl-expired": "A signer's list is past its next update.",
        "crl-not-yet-valid": "A signer's list is not valid yet.",
    }
)
"""Refused: what is published stays."""

WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        "extra-blocks": "Blocks after the first of a part that has one; they are left out.",
        "expires-soon": "A certificate lives less than two workload TTLs; of kind tls, than a"
        " third of the lifetime of its leaf, 30 days at most.",
        "weak-key": "An RSA key under 2048 bits, or P-224.",
        "ed25519-key": "An Ed25519 key, which not every data plane takes.",
        "no-key-id": "The CA certificate has no subject key identifier.",
        "name-constraints-unusual": "Names of a default mesh are not permitted.",
        "chain-unused": "A certificate of the chain is on no path.",
        "chain-repaired": "What is sent was not in order, or repeated, and was put right.",
        "chain-incomplete": "A publicly trusted certificate comes without its issuer.",
        "root-sent": "A root is sent, which no client needs.",
        "leaf-is-ca": "A server's or client's certificate is a CA.",
        "san-unusable": "A name that no client can ask for.",
        "client-san-missing": "A client's certificate has no name to be known by.",
        "root-trusted-for-itself": "A certificate among the roots is not a CA, of kind tls.",
        "root-not-valid": "A root beside the path has expired, or is not valid yet.",
        "crl-missing-for-root": "A root beside the path has no list.",
    }
)
"""Shown: the set is published."""
