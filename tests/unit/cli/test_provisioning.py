"""`certagent vault setup` before it meets a Vault: what is read, refused and printed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from certagent.cli.main import main
from certagent.cli.provisioning.keys import public_keys

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def number(value):
    return urlsafe_b64encode(value.to_bytes(32)).rstrip(b"=").decode()


def jwk(**changes):
    numbers = KEY.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": number(numbers.x), "y": number(numbers.y), **changes}


def jwks(*keys):
    return json.dumps({"keys": keys})


class TestPublicKeys:
    def test_a_jwks_of_an_ec_issuer_becomes_pem(self):
        (pem,) = public_keys(jwks(jwk()))

        assert load_pem_public_key(pem.encode()) == KEY.public_key()

    def test_all_keys_of_a_rotation_are_taken(self):
        assert public_keys(jwks(jwk(), jwk())) == (PEM, PEM)
        assert public_keys(f"# old\n{PEM}# new\n{PEM}") == (PEM, PEM)

    def test_keys_for_encryption_are_not_asked(self):
        assert public_keys(jwks(jwk(), jwk(use="enc"))) == (PEM,)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "no public key"),
            ("{", "Expecting"),
            ("{}", "KeyError"),
            (jwks(), "no public key"),
            (jwks(jwk(kty="OKP")), "not 'OKP'"),
            (jwks(jwk(crv="P-192")), "KeyError"),
            (jwks(jwk(x=number(1))), "curve"),
            (jwks("key"), "AttributeError"),
            (jwks(jwk(x=1)), "TypeError"),
            ('{"keys": 1}', "TypeError"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key"),
        ],
    )
    def test_what_is_no_key_is_refused_in_words(self, text, told):
        with pytest.raises(ValueError, match=told):
            public_keys(text)

    def test_a_private_key_is_refused_and_not_shown(self):
        private = ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )

        with pytest.raises(ValueError, match="private key") as refused:
            public_keys(PEM + private.decode())

        assert "MC4C" not in str(refused.value)


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "cluster1.pem"
    path.write_text(PEM)
    return str(path)


def setup(*words):
    return main(["vault", "setup", *words])


class TestPrinted:
    def test_a_cluster_has_its_own_mounts_policy_and_role(self, keys, capsys):
        assert setup("--cluster", "cluster1", "--keys", keys) == 0

        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "# cluster1"
        rule = 'path "kubernetes-cluster1-secrets/data/istiod-service/certs"'
        for expected in (
            "vault secrets enable -path=kubernetes-cluster1-secrets -version=2 kv",
            "vault auth enable -path=kubernetes-cluster1 jwt",
            "vault policy write istiod-cluster1 - <<'EOF'",
            f'{rule} {{ capabilities = ["read"] }}',
            "vault write auth/kubernetes-cluster1/role/istiod \\",
            "  bound_subject=system:serviceaccount:istio-system:istiod \\",
            "  bound_audiences=vault \\",
        ):
            assert expected in lines

    def test_a_login_that_is_its_own_reviewer_needs_a_binding_and_the_pods_own_token(self, capsys):
        words = ("--kubernetes-host", "https://{cluster}.example.com:6443")

        assert setup("--cluster", "a", "--cluster", "b", *words) == 0

        out = capsys.readouterr().out
        assert "kubernetes_host=https://a.example.com:6443" in out
        assert "kubernetes_host=https://b.example.com:6443" in out
        assert "# kubectl create clusterrolebinding istiod-tokenreview" in out
        assert "certagent overlay --audience ''" in out
        assert "token_reviewer_jwt" not in out

    def test_a_gateway_has_a_role_and_a_path_of_its_own(self, keys, capsys):
        account = "istio-ingress/istio-ingressgateway"
        words = ("--role", "ingress", "--service-account", account, "--path", "gateways/shop")

        setup("--cluster", "cluster1", "--keys", keys, *words)

        out = capsys.readouterr().out
        assert "vault policy write ingress-cluster1" in out
        assert "kubernetes-cluster1-secrets/data/gateways/shop" in out
        assert "bound_subject=system:serviceaccount:istio-ingress:istio-ingressgateway" in out


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--cluster", "../x"], "cannot be a cluster's name"),
            (["--cluster", "a", "--cluster", "a"], "named twice"),
            (["--cluster", "East", "--cluster", "east"], "named twice"),
            (["--cluster", "a", "--cluster", "b"], "each could read the other's CA"),
            (["--cluster", "a", "--path", "istiod/*"], "no wildcards"),
            (["--cluster", "a", "--path", "/istiod"], "no slash at the ends"),
            (["--cluster", "a", "--role", 'x" {}'], "cannot be one"),
            (["--cluster", "a", "--ttl", "1 hour"], "30m or 1h"),
            (["--cluster", "a", "--audience", "@/etc/passwd"], "such as vault"),
            (["--cluster", "a", "--service-account", "istiod"], "NAMESPACE/NAME"),
            (["--cluster", "a", "--issuer", "http://issuer"], "expected https://"),
            (["--cluster", "a", "--kubernetes-host", "https://a"], "or by asking the cluster"),
        ],
    )
    def test_what_would_become_another_policy_or_login(self, words, told, keys, capsys):
        assert setup(*words, "--keys", keys) == 64

        assert told in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ([], "give one"),
            (["--kubernetes-ca", "ca.pem"], "give one"),
            (["--keys", "/dev/null", "--issuer-ca", "ca.pem"], "give one"),
            (["--keys", "/nowhere/{cluster}.pem"], "/nowhere/a.pem cannot be read"),
            (["--keys", "/dev/null"], "no public key"),
        ],
    )
    def test_a_cluster_that_vault_would_not_know(self, words, told, capsys):
        assert setup("--cluster", "a", *words) == 64

        assert told in capsys.readouterr().err

    def test_keys_that_are_no_text(self, tmp_path, capsys):
        (tmp_path / "key.der").write_bytes(b"\xff\xfe")

        assert setup("--cluster", "a", "--keys", str(tmp_path / "key.der")) == 64

        assert "it is no text" in capsys.readouterr().err
