"""The login methods, against a real OpenBao."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from certagent.config.model import (
    AppRoleAuth,
    CertAuth,
    JwtAuth,
    KubernetesAuth,
    TokenAuth,
    VaultConfig,
)
from certagent.errors import AccessDenied, SourceUnavailable
from certagent.sources.vault.connection import VaultConnection
from tests.support.openbao import OpenBao, OpenBaoError


@pytest.fixture
def secret(openbao):
    """A path, and a policy that may read it."""
    mount = openbao.kv()
    openbao.put(mount, "certs", {"ca_key": "key"})
    return f"{mount}/data/certs", openbao.policy(f"{mount}/data/certs")


@pytest.fixture
def connect(openbao):
    """Make connections that are closed at the end."""
    made = []

    def connect(auth, address=openbao.address, token="", **options):
        config = VaultConfig(address=address, auth=auth, **options)
        made.append(VaultConnection(config, environment_token=token))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def read(connection, path):
    answer = connection.call(lambda client: client.get(f"/v1/{path}"))
    return answer["data"]["data"]


def file(tmp_path, text, name="token"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


class TestKubernetes:
    @pytest.fixture
    def auth(self, openbao, cluster, secret, tmp_path):
        mount = openbao.kubernetes_auth(cluster)
        openbao.kubernetes_role(mount, "istiod", secret[1])
        path = file(tmp_path, cluster.mint() + "\n")
        return KubernetesAuth(role="istiod", mount=mount, token_file=path)

    def test_a_projected_token_logs_in(self, auth, connect, secret):
        connection = connect(auth)

        assert read(connection, secret[0]) == {"ca_key": "key"}
        assert connection.logins == {"ok": 1}
        assert connection.requests == {"ok": 2}

    def test_the_token_is_read_afresh_at_every_login(self, auth, connect, cluster, secret):
        Path(auth.token_file).write_text(cluster.mint(expires_in=-400))
        connection = connect(auth)
        with pytest.raises(AccessDenied):
            read(connection, secret[0])
        Path(auth.token_file).write_text(cluster.mint())

        assert read(connection, secret[0]) == {"ca_key": "key"}

    @pytest.mark.parametrize(
        ("claims", "named"),
        [
            ({"service_account": "default"}, "service account 'istio-system/default'"),
            ({"namespace": "default"}, "service account 'default/istiod'"),
            ({"audience": "kube"}, "audience 'kube'"),
            ({"expires_in": -400}, "has expired"),
        ],
    )
    def test_another_account_audience_or_time_is_refused_and_named(
        self, auth, connect, cluster, secret, claims, named
    ):
        Path(auth.token_file).write_text(cluster.mint(**claims))
        connection = connect(auth)

        with pytest.raises(AccessDenied) as refused:
            read(connection, secret[0])

        assert f"the login for role 'istiod' at '{auth.mount}' (403" in refused.value.message
        assert named in refused.value.hint
        assert connection.logins == {"denied": 1}

    def test_a_forged_token_is_refused(self, auth, connect, cluster, secret):
        Path(auth.token_file).write_text(cluster.mint(key=rsa.generate_private_key(65537, 2048)))

        with pytest.raises(AccessDenied, match="403"):
            read(connect(auth), secret[0])

    def test_a_token_of_a_deleted_account_is_refused(self, auth, connect, cluster, secret):
        cluster.deleted.add(("istio-system", "istiod"))
        try:
            with pytest.raises(AccessDenied, match="403"):
                read(connect(auth), secret[0])
        finally:
            cluster.deleted.clear()

    def test_a_token_reviewer_that_is_down_is_a_refusal_that_is_tried_again(
        self, auth, connect, cluster, secret
    ):
        connection = connect(auth)
        cluster.broken = True
        try:
            with pytest.raises(AccessDenied, match="token reviewer") as refused:
                read(connection, secret[0])
        finally:
            cluster.broken = False

        assert refused.value.transient
        assert read(connection, secret[0]) == {"ca_key": "key"}

    def test_a_role_that_does_not_exist_is_refused_in_vaults_words(self, auth, connect, secret):
        missing = KubernetesAuth(role="nobody", mount=auth.mount, token_file=auth.token_file)

        with pytest.raises(AccessDenied, match=r"'nobody' at .* \(400: .*nobody"):
            read(connect(missing), secret[0])

    def test_a_mount_that_does_not_exist_is_a_refusal(self, auth, connect, secret):
        missing = KubernetesAuth(role="istiod", mount="nowhere", token_file=auth.token_file)

        with pytest.raises(AccessDenied, match="at 'nowhere'"):
            read(connect(missing), secret[0])


class TestJwt:
    @pytest.fixture
    def auth(self, openbao, cluster, secret, tmp_path):
        mount = openbao.jwt_auth(cluster)
        openbao.jwt_role(mount, "istiod", secret[1])
        return JwtAuth(role="istiod", mount=mount, token_file=file(tmp_path, cluster.mint()))

    def test_a_projected_token_logs_in(self, auth, connect, secret):
        assert read(connect(auth), secret[0]) == {"ca_key": "key"}

    def test_another_account_is_refused_in_vaults_words(self, auth, connect, cluster, secret):
        Path(auth.token_file).write_text(cluster.mint("istio-system", "other"))

        with pytest.raises(AccessDenied, match=r"\(400: .*subject.*\)") as refused:
            read(connect(auth), secret[0])

        assert "istio-system/other" in refused.value.hint


class TestAppRole:
    @pytest.fixture
    def mount(self, openbao, secret):
        mount = openbao.enable_auth("approle")
        openbao.call("POST", f"auth/{mount}/role/istiod", {"token_policies": [secret[1]]})
        return mount

    @pytest.fixture
    def auth(self, openbao, mount, tmp_path):
        role_id = openbao.call("GET", f"auth/{mount}/role/istiod/role-id")["data"]["role_id"]
        secret_id = openbao.call("POST", f"auth/{mount}/role/istiod/secret-id")["data"]["secret_id"]
        return AppRoleAuth(
            mount=mount,
            role_id_file=file(tmp_path, f" {role_id}\n", "role-id"),
            secret_id_file=file(tmp_path, f"{secret_id}\n", "secret-id"),
        )

    @pytest.fixture
    def wrapped(self, auth):
        return AppRoleAuth(
            mount=auth.mount,
            role_id_file=auth.role_id_file,
            secret_id_file=auth.secret_id_file,
            secret_id_wrapped=True,
        )

    @pytest.fixture
    def wrap(self, openbao, mount, auth):
        """Put a new wrapped secret id into the file, and return the wrapping token."""

        def wrap(path="", ttl="60s"):
            path = path or f"auth/{mount}/role/istiod/secret-id"
            answer = openbao.call("POST", path, {}, wrap_ttl=ttl)
            token = answer["wrap_info"]["token"]
            Path(auth.secret_id_file).write_text(token)
            return token

        return wrap

    def test_a_role_id_and_a_secret_id_log_in(self, auth, connect, secret):
        assert read(connect(auth), secret[0]) == {"ca_key": "key"}

    def test_a_wrong_secret_id_is_refused(self, auth, connect, secret):
        Path(auth.secret_id_file).write_text("0000-wrong")

        with pytest.raises(AccessDenied, match="AppRole login at") as refused:
            read(connect(auth), secret[0])

        assert "0000-wrong" not in str(refused.value)

    def test_a_wrapped_secret_id_is_unwrapped_once_and_serves_later_logins(
        self, wrapped, connect, secret, wrap, openbao
    ):
        wrap()
        connection = connect(wrapped)
        assert read(connection, secret[0]) == {"ca_key": "key"}
        openbao.call("POST", "auth/token/revoke", {"token": connection._client.token})

        assert read(connection, secret[0]) == {"ca_key": "key"}
        assert connection.logins == {"ok": 2}

    def test_a_new_wrapping_token_is_unwrapped(self, wrapped, connect, secret, wrap, openbao):
        wrap()
        connection = connect(wrapped)
        read(connection, secret[0])
        wrap()
        openbao.call("POST", "auth/token/revoke", {"token": connection._client.token})
        before = connection.requests.total()

        assert read(connection, secret[0]) == {"ca_key": "key"}
        # The read that is refused, unwrap, login, revoke (refused: it is gone), and the read.
        assert connection.requests.total() - before == 5

    def test_a_wrapping_token_that_was_used_is_refused_with_a_warning(
        self, wrapped, connect, secret, wrap, openbao
    ):
        token = wrap()
        openbao.call("POST", "sys/wrapping/unwrap", token=token)

        with pytest.raises(AccessDenied, match="someone else may have unwrapped it") as refused:
            read(connect(wrapped), secret[0])

        assert token not in str(refused.value)

    def test_a_wrapping_token_of_something_else_is_told(self, wrapped, connect, secret, wrap):
        wrap("sys/wrapping/wrap")

        with pytest.raises(SourceUnavailable, match="'secret_id'"):
            read(connect(wrapped), secret[0])


class TestCert:
    @pytest.fixture
    def certs(self, openbao, tls, secret):
        mount = openbao.enable_auth("cert")
        role = {"certificate": tls.ca_pem, "token_policies": [secret[1]]}
        openbao.call("POST", f"auth/{mount}/certs/istiod", role)
        return mount

    @pytest.mark.parametrize("role", ["istiod", ""])
    def test_a_client_certificate_logs_in(self, openbao, tls, certs, connect, secret, role):
        cert, key = tls.issue("client", client=True)
        auth = CertAuth(cert_file=str(cert), key_file=str(key), mount=certs, role=role)
        connection = connect(auth, openbao.tls_address, ca_file=str(tls.ca_file))

        assert read(connection, secret[0]) == {"ca_key": "key"}

    def test_another_authoritys_certificate_is_refused(
        self, openbao, tls, certs, connect, secret, tmp_path
    ):
        cert, key = type(tls)(tmp_path).issue("stranger", client=True)
        auth = CertAuth(cert_file=str(cert), key_file=str(key), mount=certs)
        connection = connect(auth, openbao.tls_address, ca_file=str(tls.ca_file))

        with pytest.raises(AccessDenied, match=r"the login with the certificate .*stranger\.pem"):
            read(connection, secret[0])

    def test_a_key_file_that_is_missing_is_told(self, openbao, tls, certs, connect, secret):
        cert, _ = tls.issue("client", client=True)
        auth = CertAuth(cert_file=str(cert), key_file="/nowhere/key.pem", mount=certs)
        connection = connect(auth, openbao.tls_address, ca_file=str(tls.ca_file))

        with pytest.raises(SourceUnavailable, match=r"/nowhere/key\.pem"):
            read(connection, secret[0])


class TestToken:
    def test_a_token_from_a_file_is_used_without_a_login(self, openbao, connect, secret, tmp_path):
        token = openbao.create_token(secret[1])
        connection = connect(TokenAuth(token_file=file(tmp_path, token)))

        assert read(connection, secret[0]) == {"ca_key": "key"}
        assert (connection.logins, connection.requests) == ({}, {"ok": 1})

    def test_a_token_that_the_caller_hands_in_is_used(self, openbao, connect, secret):
        connection = connect(TokenAuth(), token=openbao.create_token(secret[1]))

        assert read(connection, secret[0]) == {"ca_key": "key"}

    def test_hvacs_own_sources_of_tokens_are_not_asked(
        self, openbao, connect, secret, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("VAULT_TOKEN", openbao.token)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".vault-token").write_text(openbao.token)

        with pytest.raises(AccessDenied, match="There is no Vault token"):
            read(connect(TokenAuth()), secret[0])

    def test_the_file_is_read_again_after_a_403(self, openbao, connect, secret, tmp_path):
        path = file(tmp_path, openbao.create_token(secret[1], num_uses=1))
        connection = connect(TokenAuth(token_file=path))
        read(connection, secret[0])
        file(tmp_path, openbao.create_token(secret[1]))

        assert read(connection, secret[0]) == {"ca_key": "key"}

    def test_the_same_token_is_not_tried_twice(self, connect, secret, tmp_path):
        connection = connect(TokenAuth(token_file=file(tmp_path, "hvs.not-a-token")))

        with pytest.raises(Exception, match="403"):
            read(connection, secret[0])

        assert connection.requests == {"denied": 1}

    def test_a_given_token_is_never_revoked(self, openbao, connect, secret):
        token = openbao.create_token(secret[1])
        connection = connect(TokenAuth(), token=token)
        read(connection, secret[0])

        connection.close()

        assert openbao.call("GET", "auth/token/lookup-self", token=token)["data"]["ttl"] > 0


class TestLifeOfALogin:
    @pytest.fixture
    def jwt(self, openbao, cluster, secret, tmp_path):
        mount = openbao.jwt_auth(cluster)
        path = file(tmp_path, cluster.mint())

        def auth(**options):
            openbao.jwt_role(mount, "istiod", secret[1], **options)
            return JwtAuth(role="istiod", mount=mount, token_file=path)

        return auth

    def test_nothing_is_asked_before_it_is_needed(self, jwt, connect):
        connection = connect(jwt())
        connection.close()

        assert connection.requests == {}

    def test_one_login_serves_a_hundred_reads(self, jwt, connect, secret):
        connection = connect(jwt())

        for _ in range(100):
            read(connection, secret[0])

        assert connection.requests == {"ok": 101}
        assert connection.logins == {"ok": 1}

    def test_close_revokes_the_token_and_never_raises(self, jwt, openbao, connect, secret):
        connection = connect(jwt())
        read(connection, secret[0])
        token = connection._client.token

        connection.close()
        connection.close()

        with pytest.raises(OpenBaoError, match="403"):
            openbao.call("GET", "auth/token/lookup-self", token=token)

    def test_a_batch_token_is_not_revoked(self, jwt, connect, secret):
        connection = connect(jwt(token_type="batch"))
        read(connection, secret[0])

        connection.close()

        assert connection.requests == {"ok": 2}

    def test_a_token_that_was_revoked_is_replaced_within_the_operation(
        self, jwt, openbao, connect, secret
    ):
        connection = connect(jwt())
        read(connection, secret[0])
        openbao.call("POST", "auth/token/revoke", {"token": connection._client.token})

        assert read(connection, secret[0]) == {"ca_key": "key"}
        assert connection.logins == {"ok": 2}

    def test_a_token_of_few_uses_is_replaced_when_used_up(self, jwt, connect, secret):
        connection = connect(jwt(token_num_uses=2))

        for _ in range(4):
            assert read(connection, secret[0]) == {"ca_key": "key"}

        assert connection.logins == {"ok": 2}

    def test_a_policy_that_forbids_costs_one_login_an_operation_and_leaves_no_lease(
        self, jwt, openbao, connect
    ):
        connection = connect(jwt())
        tokens = []

        for _ in range(2):
            with pytest.raises(Exception, match="403"):
                read(connection, "sys/mounts")
            tokens.append(connection._client.token)

        assert connection.logins == {"ok": 2}
        with pytest.raises(OpenBaoError, match="403"):
            openbao.call("GET", "auth/token/lookup-self", token=tokens[0])
        assert openbao.call("GET", "auth/token/lookup-self", token=tokens[1])["data"]["ttl"] > 0

    def test_a_server_that_dies_is_unavailable_and_close_stays_quiet(self):
        with OpenBao() as server:
            config = VaultConfig(address=server.address, auth=TokenAuth(), request_timeout="1s")
            connection = VaultConnection(config, environment_token=server.token)
            connection.call(lambda client: client.get("/v1/sys/mounts"))
            server.freeze()
            with pytest.raises(SourceUnavailable, match=r"had not answered in full after 1\.\d s"):
                connection.call(lambda client: client.get("/v1/sys/mounts"))
            server.thaw()
            server.call("POST", "sys/seal")
            with pytest.raises(SourceUnavailable, match=r"503: Vault is sealed.*\n.*sealed"):
                connection.call(lambda client: client.get("/v1/sys/mounts"))
        with pytest.raises(SourceUnavailable, match="connection refused"):
            connection.call(lambda client: client.get("/v1/sys/mounts"))
        connection.close()

        assert connection.requests == {"ok": 1, "unavailable": 3}

    def test_a_login_to_a_dead_server_is_counted_as_unavailable(self, tmp_path, cluster):
        auth = JwtAuth(role="r", token_file=file(tmp_path, cluster.mint()))
        connection = VaultConnection(VaultConfig(address="http://127.0.0.1:1", auth=auth))

        with pytest.raises(SourceUnavailable):
            read(connection, "x")

        assert (connection.logins, connection.requests) == ({"unavailable": 1},) * 2
