"""What a pod logs in with: whose it is, for whom and how long, and whether kubelet renews it."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from certagent.cli.diagnosis.credential import of_azure, of_vault
from certagent.cli.diagnosis.mounts import Mount
from certagent.cli.diagnosis.result import About, attempt
from certagent.config.model import (
    AppRoleAuth,
    AzureCli,
    CertAuth,
    ClientCertificate,
    ClientSecret,
    JwtAuth,
    KubernetesAuth,
    ManagedIdentity,
    TokenAuth,
    WorkloadIdentity,
)
from tests.support.diagnosis import Report
from tests.support.material import cert_pem, make_leaf, make_root

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
EXCHANGE = "api://AzureADTokenExchange"


def encoded(part) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def jwt(*, audience="vault", issued=NOW, expires=NOW + HOUR, **claims) -> str:
    told = {"sub": "system:serviceaccount:istio-system:istiod", "aud": [audience], **claims}
    times = {"iat": issued, "exp": expires}
    told |= {name: int(each.timestamp()) for name, each in times.items() if each}
    return f"{encoded({'alg': 'RS256'})}.{encoded(told)}.signature-of-it"


@pytest.fixture
def project(tmp_path):
    """Put a token where kubelet would: a link to one in `..data`; return its path."""

    def project(token):
        (tmp_path / "..2026").mkdir()
        (tmp_path / "..data").symlink_to("..2026")
        (tmp_path / "..2026" / "token").write_text(token)
        (tmp_path / "token").symlink_to("..data/token")
        return str(tmp_path / "token")

    return project


@pytest.fixture
def file(tmp_path):
    def file(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return file


def of(auth, token="", table=()):
    return Report(attempt(About("credential"), of_vault(auth, token, NOW, table)))


class TestFiles:
    @pytest.mark.parametrize("content", [None, "", "two\nlines", b"\xff", "x" * 70_000])
    def test_one_that_cannot_be_used_is_told_what_to_do(self, file, content):
        path = "/nonexistent/token" if content is None else file(content)

        (result,) = of(KubernetesAuth(role="r", token_file=path)).results

        assert result.exit_code == 77
        assert result.fix.startswith("Project a token (serviceAccountToken)")
        assert f"readable for user {os.geteuid()}" in result.fix

    def test_one_that_is_no_token_tells_to_put_it_there(self):
        (result,) = of(TokenAuth(token_file="/nonexistent/token")).results

        assert result.fix.startswith("Put it there. The configuration's path")

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")

        (result,) = of(CertAuth(cert_file="/c", key_file=str(tmp_path / "pipe"))).results

        assert "pipe is no file" in result.message

    def test_a_token_in_the_place_of_a_path_is_not_shown(self):
        (result,) = of(TokenAuth(token_file="hvs.CAESIJ-a-token-of-vaults")).results

        assert "CAESIJ" not in result.message + result.fix
        assert "Give the path of a file" in result.fix


def azure(login):
    return Report(attempt(About("credential"), of_azure(login, NOW, ())))


def kubernetes(path):
    return KubernetesAuth(role="istiod", token_file=path)


class TestServiceAccountTokens:
    def test_one_that_kubelet_renews_is_told_with_its_claims(self, project):
        report = of(kubernetes(project(jwt())))

        (result,) = report.results
        assert result.verdict == "ok"
        assert "'istio-system/istiod'" in result.message
        assert "audience 'vault'" in result.message
        assert "expires at 2026-07-01T13:00:00Z" in result.message

    def test_no_part_of_the_token_is_shown(self, project):
        token = jwt()

        shown = of(kubernetes(project(token))).text

        assert not any(part in shown for part in token.split("."))

    def test_one_that_is_missing(self, tmp_path):
        report = of(JwtAuth(role="istiod", token_file=str(tmp_path / "none")))

        assert report.failures == [("credential", 77)]
        assert "No such file" in report.text

    @pytest.mark.parametrize("text", ["hvs.a-vault-token-of-some-length", "a.b.c", "x.W10.y"])
    def test_what_is_no_token_of_kubernetes(self, project, text):
        report = of(kubernetes(project(text)))

        assert report.failures == [("credential", 77)]
        assert "no service-account token" in report.text
        assert text not in report.text

    def test_one_that_has_expired(self, project):
        report = of(kubernetes(project(jwt(expires=NOW - HOUR))))

        assert report.failures == [("credential", 77)]
        assert "expired at 2026-07-01T11:00:00Z" in report.text
        assert "subPath" in report.the("credential").fix

    def test_one_that_never_expires_is_for_whoever_found_it(self, project):
        report = of(kubernetes(project(jwt(expires=None))))

        assert report.verdicts("credential") == ["ok", "warning"]
        assert "never expires" in report.text

    @pytest.mark.parametrize(
        "audience",
        ["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"],
    )
    def test_one_for_the_clusters_own_api_is_too_mighty(self, project, audience):
        report = of(kubernetes(project(jwt(audience=audience))))

        assert "audience: vault" in report.the("credential", "warning").fix

    def test_a_plain_file_is_not_renewed(self, file):
        report = of(kubernetes(file(jwt())))

        assert "plain file" in report.the("credential", "warning").message

    def test_one_that_is_mounted_by_itself_is_not_renewed(self, file):
        path = file(jwt())
        table = (Mount("/", "/", "overlay"), Mount(path, "/token", "tmpfs"))

        report = of(kubernetes(path), table=table)

        assert "subPath" in report.the("credential", "warning").message

    def test_one_that_kubelet_should_have_renewed(self, project):
        issued = NOW - timedelta(minutes=57)
        report = of(kubernetes(project(jwt(issued=issued, expires=issued + HOUR))))

        assert "should have renewed" in report.the("credential", "warning").message

    def test_times_that_are_none_are_taken_for_missing(self, project):
        report = of(kubernetes(project(jwt(expires=None, exp=1e300, iat="yesterday"))))

        assert report.verdicts("credential") == ["ok", "warning"]

    def test_claims_cannot_forge_a_line(self, project):
        report = of(kubernetes(project(jwt(audience="vault\nok  login: fine"))))

        assert "\n" not in report.the("credential", "ok").message


class TestOtherFiles:
    def test_approle(self, file):
        auth = AppRoleAuth(role_id_file=file("role", "a"), secret_id_file=file("secret-id", "b"))

        assert of(auth).verdicts("credential") == ["ok"]
        wrapped = AppRoleAuth(
            role_id_file=file("role", "a"),
            secret_id_file=file("wrapping-token", "b"),
            secret_id_wrapped=True,
        )
        assert "wrapped" in of(wrapped).text

    def test_approle_without_a_secret_id(self, file, tmp_path):
        auth = AppRoleAuth(role_id_file=file("role"), secret_id_file=str(tmp_path / "none"))

        assert of(auth).failures == [("credential", 77)]

    def test_a_vault_token(self, file):
        assert of(TokenAuth(token_file=file("s.some-token-of-vault"))).verdicts("credential") == [
            "ok"
        ]

    def test_vault_token_from_the_environment(self):
        report = of(TokenAuth(), "s.some-token-of-vault")

        assert report.verdicts("credential") == ["ok"]
        assert "s.some" not in report.text

    @pytest.mark.parametrize("token", ["", " ", "two lines\nof it"])
    def test_a_vault_token_that_is_none(self, token):
        assert of(TokenAuth(), token).failures == [("credential", 77)]


class TestClientCertificates:
    @pytest.fixture
    def of_leaf(self, file):
        def of_leaf(**dates):
            leaf = make_leaf(make_root().intermediate(), **dates).certificate
            return of(CertAuth(cert_file=file(cert_pem(leaf), "c"), key_file=file("key", "k")))

        return of_leaf

    def test_one_that_lasts(self, of_leaf):
        assert of_leaf(not_after=NOW + timedelta(days=90)).verdicts("credential") == ["ok"]

    def test_one_that_ends_within_a_week(self, of_leaf):
        assert of_leaf(not_after=NOW + timedelta(days=3)).verdicts("credential") == ["warning"]

    def test_one_that_has_ended(self, of_leaf):
        report = of_leaf(not_after=NOW - HOUR)

        assert report.failures == [("credential", 77)]
        assert "expired at 2026-07-01T11:00:00Z" in report.text

    def test_one_that_is_none(self, file):
        garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        auth = CertAuth(cert_file=file(garbage, "c"), key_file=file("key", "k"))

        assert of(auth).failures == [("credential", 77)]

    def test_without_its_key(self, file, tmp_path):
        auth = CertAuth(cert_file=file("c"), key_file=str(tmp_path / "none"))

        assert of(auth).failures == [("credential", 77)]

    def test_pkcs12_is_left_to_the_login(self, file):
        login = ClientCertificate(
            tenant_id="t", client_id="c", certificate_file=file(b"\x30\x82\x00\x01", "p12")
        )

        assert azure(login).verdicts("credential") == ["ok"]


class TestAzure:
    def test_a_federated_token(self, project):
        report = azure(WorkloadIdentity(token_file=project(jwt(audience=EXCHANGE))))

        assert report.verdicts("credential") == ["ok"]

    def test_a_federated_token_for_somebody_else(self, project):
        report = azure(WorkloadIdentity(token_file=project(jwt(audience="vault"))))

        assert EXCHANGE in report.the("credential", "warning").fix

    def test_a_client_secret(self, file):
        login = ClientSecret(tenant_id="t", client_id="c", secret_file=file("a-client-secret"))

        report = azure(login)

        assert report.verdicts("credential") == ["ok"]
        assert "a-client-secret" not in report.text

    @pytest.mark.parametrize("login", [ManagedIdentity(), AzureCli()])
    def test_logins_without_files(self, login):
        assert azure(login).verdicts("credential") == ["ok"]
