"""certagent doctor against a real OpenBao: what it tells of logins, reads and issuers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from certagent.cli.diagnosis import vault
from certagent.cli.diagnosis.mounts import mounts
from tests.support.diagnosis import Report, configured
from tests.support.material import (
    fields,
    make_leaf,
    make_root,
    new_key,
    private_key_pem,
    tls_fields,
)
from tests.support.openbao import OpenBaoError, free_port
from tests.support.process import certagent, published, running
from tests.support.scripted import ScriptedServer, answer

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


@pytest.fixture(scope="module")
def ca_raw(ca):
    return ca.raw()


class Mesh:
    """A KV v2 mount, and an agent of `istio-system/istiod` that may read `ca` in it."""

    def __init__(self, openbao, cluster, home):
        self.openbao, self.cluster, self.home = openbao, cluster, home
        self.mount = openbao.kv(2)
        self.auth = openbao.kubernetes_auth(cluster)
        self.token_file = home / "token"
        self.address = openbao.address
        self.allow(f"{self.mount}/data/ca")
        self.mint()

    def allow(self, *paths, **options):
        policy = self.openbao.policy(*paths)
        self.openbao.kubernetes_role(self.auth, "istiod", policy, **options)

    def mint(self, **claims):
        self.token_file.write_text(self.cluster.mint(**claims))

    def put(self, raw):
        return self.openbao.put(self.mount, "ca", fields(raw))

    @property
    def login(self):
        return {
            "method": "kubernetes",
            "mount": self.auth,
            "role": "istiod",
            "tokenFile": str(self.token_file),
        }

    def examine(self, source=None, auth=None, **more):
        source = source or {"vaultKV": {"mount": self.mount, "path": "ca"}}
        store = {"address": self.address, "auth": auth or self.login, "requestTimeout": "2s"}
        config = configured(self.home, source, vault=store, **more)
        return Report(vault.results(config, datetime.now(UTC), mounts()))

    @property
    def environ(self):
        return {
            "VAULT_ADDR": self.address,
            "CERTAGENT_SOURCE": f"vault:{self.mount}/ca",
            "CERTAGENT_VAULT_AUTH_MOUNT": self.auth,
            "CERTAGENT_VAULT_ROLE": "istiod",
            "CERTAGENT_VAULT_TOKEN_FILE": self.token_file,
            "ROOT_CA_DIR": self.home / "ca",
            "ISTIO_MULTIROOT_MESH": "true",
        }

    def leases(self):
        """How many logins of the mount are not revoked."""
        try:
            path = f"sys/leases/lookup/auth/{self.auth}/login"
            return len(self.openbao.call("LIST", path)["data"]["keys"])
        except OpenBaoError:
            return 0


def relayed(asked, openbao):
    """What the real server answers to a request that another one got: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", openbao.port, timeout=10)
    own = ("host", "connection")
    headers = {name: text for name, text in asked.headers.items() if name not in own}
    connection.request(asked.method, asked.path, asked.body or None, headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.fixture
def mesh(openbao, cluster, tmp_path):
    return Mesh(openbao, cluster, tmp_path)


class TestLogin:
    def test_all_is_well(self, mesh, ca_raw):
        mesh.put(ca_raw)

        report = mesh.examine()

        assert not report.failures
        login = report.the("login", "ok").message
        assert "as role 'istiod', 1:00:00 long" in login
        assert "policy-" in login

    def test_the_login_is_given_back(self, mesh, ca_raw):
        mesh.put(ca_raw)

        mesh.examine()

        assert mesh.leases() == 0

    def test_a_wrong_audience(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.mint(audience="elsewhere")

        report = mesh.examine()

        assert report.failures == [("login", 77)]
        assert "'elsewhere'" in report.the("credential", "ok").message
        assert "'elsewhere'" in report.the("login").fix
        assert report.verdicts("read") == ["skipped"]

    def test_an_unknown_role(self, mesh):
        report = mesh.examine(auth={**mesh.login, "role": "nobody"})

        assert report.failures == [("login", 77)]

    def test_a_token_that_has_expired_is_not_tried(self, mesh):
        mesh.mint(expires_in=-60)

        report = mesh.examine()

        assert report.failures == [("credential", 77)]
        assert report.verdicts("login") == ["skipped"]

    def test_a_lease_shorter_than_a_poll(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/ca", token_ttl="20s")

        report = mesh.examine(refresh={"interval": "30s"})

        assert "token_ttl" in report.the("login", "warning").fix

    def test_a_token_of_a_few_uses(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/ca", token_num_uses=20)

        assert "token_num_uses=0" in mesh.examine().the("login", "warning").fix

    def test_a_login_that_may_not_look_at_itself(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/ca", token_no_default_policy=True)

        report = mesh.examine(
            source={"vaultKV": {"mount": mesh.mount, "path": "ca", "kvVersion": 2}}
        )

        assert not report.failures
        assert report.verdicts("login") == ["ok"]
        assert "may not look" in report.the("engine").message

    def test_a_root_token(self, mesh, openbao, ca_raw, monkeypatch):
        mesh.put(ca_raw)
        monkeypatch.setenv("VAULT_TOKEN", openbao.token)

        report = mesh.examine(auth={"method": "token"})

        assert not report.failures
        assert "root token" in report.the("login", "warning").message
        assert openbao.token not in report.text

    def test_a_given_token_is_not_renewed_and_not_revoked(self, mesh, openbao, ca_raw, monkeypatch):
        mesh.put(ca_raw)
        token = openbao.create_token(openbao.policy(f"{mesh.mount}/data/ca"), ttl="1h")
        monkeypatch.setenv("VAULT_TOKEN", token)

        report = mesh.examine(auth={"method": "token"})

        assert "does not renew" in report.the("login", "warning").message
        assert openbao.call("GET", "auth/token/lookup-self", token=token)["data"]["ttl"] > 0

    def test_a_given_token_that_is_none(self, mesh, monkeypatch):
        monkeypatch.setenv("VAULT_TOKEN", "s.a-token-that-nobody-issued-ever")

        report = mesh.examine(auth={"method": "token"})

        assert report.verdicts("login") == ["warning"]
        assert report.failures == [("read", 77)]


class TestWrappedSecretIds:
    @pytest.fixture
    def auth(self, mesh, openbao):
        """An AppRole login with a wrapped secret id; `wrap` writes a fresh one."""
        mount = openbao.enable_auth("approle")
        policy = openbao.policy(f"{mesh.mount}/data/ca")
        openbao.call("POST", f"auth/{mount}/role/istiod", {"token_policies": [policy]})
        role_id = openbao.call("GET", f"auth/{mount}/role/istiod/role-id")["data"]["role_id"]
        wrapped = openbao.call("POST", f"auth/{mount}/role/istiod/secret-id", {}, wrap_ttl="5m")
        (mesh.home / "role-id").write_text(role_id)
        (mesh.home / "wrapped").write_text(wrapped["wrap_info"]["token"])
        return {
            "method": "approle",
            "mount": mount,
            "roleIdFile": str(mesh.home / "role-id"),
            "secretIdFile": str(mesh.home / "wrapped"),
            "secretIdWrapped": True,
        }

    def test_the_agent_can_still_unwrap_it(self, mesh, openbao, auth):
        report = mesh.examine(auth=auth)

        assert report.verdicts("login") == report.verdicts("read") == ["skipped"]
        assert not report.failures
        token = (mesh.home / "wrapped").read_text()
        assert openbao.call("POST", "sys/wrapping/unwrap", {}, token=token)["data"]["secret_id"]

    def test_one_that_is_used_up(self, mesh, openbao, auth):
        token = (mesh.home / "wrapped").read_text()
        openbao.call("POST", "sys/wrapping/unwrap", {}, token=token)

        report = mesh.examine(auth=auth)

        assert report.verdicts("login") == ["warning", "skipped"]
        assert "used up" in report.text
        assert token not in report.text


class TestServer:
    def test_it_tells_its_version(self, mesh):
        assert "Vault 2." in mesh.examine().the("server").message

    def test_nobody_listens(self, mesh):
        mesh.address = f"http://127.0.0.1:{free_port()}"

        report = mesh.examine()

        assert report.failures == [("server", 69)]
        assert report.verdicts("login") == report.verdicts("read") == ["skipped"]
        assert not report.of("clock")

    def test_a_certificate_that_is_not_trusted(self, mesh, openbao):
        mesh.address = openbao.tls_address

        report = mesh.examine()

        assert report.failures == [("server", 69)]
        assert "caFile" in report.the("server").fix

    @pytest.mark.parametrize(
        ("status", "told"), [(501, "operator init"), (503, "sealed"), (502, "log")]
    )
    def test_one_that_cannot_serve(self, mesh, status, told):
        with ScriptedServer(lambda *_: answer(status, {"sealed": True})) as server:
            mesh.address = server.address
            report = mesh.examine()

        assert report.failures == [("server", 69)]
        assert told in report.the("server").fix

    @pytest.mark.parametrize("body", [b"<html>", {"errors": []}, [1]])
    def test_a_gateway_that_withholds_the_health(self, mesh, body):
        with ScriptedServer(lambda *_: answer(404, body)) as server:
            mesh.address = server.address
            report = mesh.examine()

        assert report.verdicts("server") == ["warning"]
        assert report.verdicts("login") == ["failure"]

    @pytest.mark.parametrize(
        "data", [[1], {"creation_ttl": "x", "policies": 7}, {"policies": [1]}, None]
    )
    def test_one_whose_answers_are_not_vaults_is_no_bug(self, mesh, openbao, ca_raw, data):
        mesh.put(ca_raw)

        def script(asked, _):
            status, body = relayed(asked, openbao)
            made_up = asked.path.endswith(("/lookup-self", "/capabilities-self"))
            return answer(200, {"data": data}) if made_up else answer(status, body)

        with ScriptedServer(script) as server:
            mesh.address = server.address
            report = mesh.examine()

        assert not report.failures


class TestClock:
    @pytest.fixture
    def at(self, mesh, openbao):
        """Examine a Vault that is seen through a proxy with a clock of its own."""

        def at(date, **more):
            def script(asked, _):
                status, body = relayed(asked, openbao)
                return answer(status, body, **({"Date": date} if date else {}))

            with ScriptedServer(script) as server:
                mesh.address = server.address
                return mesh.examine(**more)

        return at

    @staticmethod
    def date(**offset):
        return format_datetime(datetime.now(UTC) + timedelta(**offset), usegmt=True)

    def test_clocks_that_agree(self, mesh):
        assert "agree" in mesh.examine().the("clock", "ok").message

    @pytest.mark.parametrize(
        ("offset", "told"), [({"hours": 2}, "ahead of"), ({"hours": -2}, "behind")]
    )
    def test_a_clock_that_is_off(self, at, mesh, ca_raw, offset, told):
        mesh.put(ca_raw)

        report = at(self.date(**offset))

        clock = report.the("clock")
        assert clock.verdict == "warning"
        assert told in clock.message
        assert "NTP" in clock.fix
        assert not report.failures

    def test_a_minute_is_within_the_slack(self, at):
        assert at(self.date(minutes=1)).verdicts("clock") == ["ok"]

    def test_a_minute_is_beyond_a_slack_of_seconds(self, at):
        rotation = {"distribute": "1h", "retire": "1h", "slack": "10s"}

        assert at(self.date(minutes=1), rotation=rotation).verdicts("clock") == ["warning"]

    @pytest.mark.parametrize("date", ["", "yesterday"])
    def test_a_server_that_does_not_tell(self, at, date):
        assert at(date).verdicts("clock") == ["skipped"]


class TestRead:
    def test_the_newest_version_and_its_verdict(self, mesh, ca_raw):
        mesh.put(ca_raw)

        report = mesh.examine()

        assert "has version 1, stored at" in report.the("read").message
        assert "istiod would take" in report.the("newest").message
        assert report.verdicts("history") == ["ok"]
        assert "version 2" in report.the("engine").message

    def test_no_permission(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/other")

        report = mesh.examine()

        assert report.failures == [("read", 77)]

    def test_no_permission_to_read_a_path_that_is_fixed(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/other")
        source = {"vaultKV": {"mount": mesh.mount, "path": "ca", "kvVersion": 2}}

        report = mesh.examine(source=source)

        assert f'"read" on "{mesh.mount}/data/ca"' in report.the("read").fix

    def test_no_secret(self, mesh):
        assert mesh.examine().failures == [("read", 66)]

    def test_a_path_of_the_api(self, mesh, ca_raw):
        mesh.put(ca_raw)

        report = mesh.examine(source={"vaultKV": {"mount": mesh.mount, "path": "data/ca"}})

        assert report.failures == [("read", 77)]
        assert "Leave data/ out" in report.the("read", "warning").fix

    def test_one_bundle_hides_no_other(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(f"{mesh.mount}/data/*")
        kv = {"mount": mesh.mount, "path": "none"}
        other = {
            "name": "other",
            "source": {"vaultKV": kv},
            "output": {"directory": str(mesh.home / "other")},
        }
        store = {"address": mesh.address, "auth": mesh.login}
        path = mesh.home / "certagent.yaml"
        source = {"vaultKV": {**kv, "path": "ca"}}
        output = {"directory": str(mesh.home / "ca")}
        ours = {"name": "ca", "source": source, "output": output}
        path.write_text(json.dumps({"vault": store, "bundles": [other, ours]}))

        done = certagent("doctor", "--config", path, "--format", "json")

        shown = json.loads(done.stdout)
        found = {(each["name"], each["bundle"]): each["verdict"] for each in shown["checks"]}
        assert found["read", "other"] == "failure"
        assert found["newest", "ca"] == "ok"
        assert done.code == shown["exitCode"] == 66

    def test_a_newest_version_that_would_be_refused(self, mesh, ca, ca_raw):
        mesh.put(ca_raw)
        mesh.put(ca.raw(private_key=private_key_pem(new_key())))

        report = mesh.examine()

        assert report.failures == [("newest", 65)]
        assert "version 2: key-mismatch" in report.the("newest").message

    def test_a_newest_version_that_was_deleted(self, mesh, openbao, ca_raw):
        mesh.put(ca_raw)
        mesh.put(ca_raw)
        openbao.delete(mesh.mount, "ca", 2)

        report = mesh.examine()

        assert report.failures == [("newest", 66)]
        assert "Undelete" in report.the("newest").fix

    def test_a_newest_version_that_has_expired_since(self, mesh):
        root = make_root()
        mesh.put(root.intermediate(not_after=datetime.now(UTC) + timedelta(days=1)).raw())
        config = configured(
            mesh.home,
            {"vaultKV": {"mount": mesh.mount, "path": "ca"}},
            vault={"address": mesh.address, "auth": mesh.login},
        )

        mesh.mint(expires_in=10 * 86400)
        later = datetime.now(UTC) + timedelta(days=3)
        report = Report(vault.results(config, later, ()))

        assert ("newest", 65) in report.failures
        assert "expired" in report.text

    def test_a_newest_version_that_somebody_should_look_at(self, mesh, ca):
        old = make_root(not_after=datetime.now(UTC) - timedelta(days=1))
        mesh.put(ca.raw(roots=(ca.root, old)))

        report = mesh.examine()

        assert report.verdicts("newest") == ["warning"]
        assert "root-not-valid" in report.text

    def test_a_gateway_has_no_windows(self, mesh, openbao):
        openbao.put(mesh.mount, "ca", tls_fields(make_leaf().raw()))

        report = mesh.examine(bundle={"kind": "tls"})

        assert not report.failures
        assert not report.of("history")


class TestHistory:
    def test_a_mount_of_version_1_keeps_none(self, mesh, openbao, ca_raw):
        mount = openbao.kv(1)
        openbao.put_v1(mount, "ca", fields(ca_raw))
        mesh.allow(f"{mount}/ca")

        report = mesh.examine(source={"vaultKV": {"mount": mount, "path": "ca"}})

        assert "keeps no history" in report.the("history", "warning").message
        assert "version 1" in report.the("engine").message

    def test_a_history_that_was_cut(self, mesh, openbao, ca_raw):
        openbao.call("POST", f"{mesh.mount}/metadata/ca", {"max_versions": 1})
        mesh.put(ca_raw)
        mesh.put(ca_raw)

        report = mesh.examine()

        assert "before version 2 cannot be known" in report.the("history", "warning").message
        assert "75 h" in report.the("history").message

    def test_with_the_permission_the_retention_is_told(self, mesh, ca_raw):
        mesh.put(ca_raw)
        mesh.allow(*(f"{mesh.mount}/{path}" for path in ("data/ca", "metadata/ca", "config")))

        assert "keeps 10 versions" in mesh.examine().the("engine").message

    def test_a_retention_that_is_too_short(self, mesh, openbao, ca_raw):
        limits = {"max_versions": 3, "delete_version_after": "100h"}
        openbao.call("POST", f"{mesh.mount}/metadata/ca", limits)
        mesh.put(ca_raw)
        mesh.allow(*(f"{mesh.mount}/{path}" for path in ("data/ca", "metadata/ca", "config")))

        report = mesh.examine()

        assert report.verdicts("engine") == ["ok", "warning", "warning"]
        assert "max-versions" in report.text
        assert "delete-version-after" in report.text

    def test_without_staging_no_history_is_needed(self, mesh, ca_raw):
        mesh.put(ca_raw)

        assert not mesh.examine(rotation={"strategy": "immediate"}).of("history")


SIGNING = {"root/sign-intermediate": "update", "issuer/+/sign-intermediate": "update"}
ROLE = {"role": "ingress", "dnsNames": ["shop.example.com"]}
TLS = {"kind": "tls"}


class TestIssuers:
    @pytest.fixture
    def look(self, mesh, openbao):
        """Examine a PKI mount with the root A, by a login with these capabilities in it."""
        mount = openbao.pki()
        openbao.issuer(mount, "A")

        def look(*, ttl="720h", source=None, bundle=None, mount=mount, **capabilities):
            paths = {"issuers": "list", "issuer/+/json": "read", **capabilities}
            policy = openbao.policy_of(**{f"{mount}/{path}": what for path, what in paths.items()})
            openbao.kubernetes_role(mesh.auth, "istiod", policy)
            wanted = source or {"commonName": "Mesh CA"}
            pki = {"vaultPKI": {"mount": mount, "ttl": ttl, **wanted}}
            return mesh.examine(source=pki, bundle=bundle or {})

        look.mount = mount
        return look

    def certificates(self, openbao, mount):
        return openbao.call("LIST", f"{mount}/certs")["data"]["keys"]

    def test_all_is_well_and_nothing_is_signed(self, look, openbao):
        before = self.certificates(openbao, look.mount)

        report = look(**SIGNING)

        assert {each.verdict.value for each in report.results if each.bundle} == {"ok"}
        assert "A (CN=A) signs" in report.the("issuer").message
        assert self.certificates(openbao, look.mount) == before

    def test_no_permission_to_sign(self, look):
        report = look()

        assert report.failures == [("sign", 77)]
        assert f'"update" on "{look.mount}/root/sign-intermediate"' in report.text

    def test_no_permission_for_a_change_of_issuers(self, look):
        report = look(**{"root/sign-intermediate": "update"})

        assert "issuer/+/sign-intermediate" in report.the("sign", "warning").fix

    def test_a_mount_that_does_not_exist(self, look):
        report = look(mount="nowhere", **SIGNING)

        assert report.failures == [("issuer", 66)]
        assert "vault secrets list" in report.the("issuer").fix

    def test_a_mount_of_another_engine(self, look, mesh):
        report = look(mount=mesh.mount, **SIGNING)

        assert report.failures == [("issuer", 66)]

    def test_a_mount_without_an_issuer(self, look, openbao):
        report = look(mount=openbao.pki(), **SIGNING)

        assert report.failures == [("issuer", 66)]

    def test_an_issuer_that_expires_sooner(self, look):
        report = look(ttl="100000h", **SIGNING)

        assert report.failures == [("issuer", 77)]
        assert "expires at" in report.the("issuer", "failure").message
        assert report.verdicts("sign") == ["ok"]

    def test_a_role(self, look, openbao):
        openbao.pki_role(look.mount, "ingress")

        report = look(
            source=ROLE,
            bundle=TLS,
            **{"sign/ingress": "update", "roles/ingress": "read"},
        )

        assert not report.failures
        assert report.verdicts("role") == ["ok"]

    def test_a_role_that_does_not_exist(self, look):
        paths = {"sign/ingress": "update", "roles/ingress": "read"}

        report = look(source=ROLE, bundle=TLS, **paths)

        assert report.failures == [("role", 66)]

    def test_a_role_that_may_not_be_looked_at(self, look):
        report = look(source=ROLE, bundle=TLS, **{"sign/ingress": "update"})

        assert report.verdicts("role") == ["skipped"]

    def test_an_issuer_that_is_named_needs_no_other_path(self, look):
        report = look(
            source={"commonName": "Mesh CA", "issuer": "A"},
            **{"issuer/A/sign-intermediate": "update"},
        )

        assert report.verdicts("sign") == ["ok"]

    def test_a_login_that_may_not_ask_for_its_capabilities(self, look, openbao, mesh):
        report = look(**SIGNING)
        policy = openbao.policy_of(
            **{f"{look.mount}/issuers": "list", f"{look.mount}/issuer/+/json": "read"}
        )
        openbao.kubernetes_role(mesh.auth, "istiod", policy, token_no_default_policy=True)
        pki = {"vaultPKI": {"mount": look.mount, "ttl": "720h", "commonName": "Mesh CA"}}

        report = mesh.examine(source=pki)

        assert report.verdicts("sign") == ["skipped"]
        assert not report.failures


@pytest.fixture
def memory(tmp_path):
    """A volume in memory, as an emptyDir with `medium: Memory` is."""
    place = tmp_path / "memory"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "certagent-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here; tests/unit/cli/diagnosis has tables of mounts")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class TestVolumes:
    @staticmethod
    def look(directory):
        environ = {"CERTAGENT_SOURCE": "file:/none", "ROOT_CA_DIR": directory}
        done = certagent("doctor", "--format", "json", **environ)
        checks = json.loads(done.stdout)["checks"]
        return {each["name"]: each for each in checks if each["bundle"]}

    def test_a_volume_in_memory(self, memory):
        found = self.look(memory)

        assert found["mount"]["verdict"] == found["space"]["verdict"] == "ok"
        assert "tmpfs" in found["mount"]["message"]

    def test_a_part_of_it(self, memory, tmp_path):
        (memory / "sub").mkdir()
        (tmp_path / "ca").mkdir()
        at = str(tmp_path / "ca")
        subprocess.run(["mount", "--bind", str(memory / "sub"), at], check=True)
        try:
            done = certagent("doctor", CERTAGENT_SOURCE="file:/none", ROOT_CA_DIR=at)
        finally:
            subprocess.run(["umount", "-l", at], check=True)

        assert "subPath: /sub" in done.stdout

    def test_one_that_is_read_only(self, memory):
        subprocess.run(["mount", "-o", "remount,ro", str(memory)], check=True)

        found = self.look(memory)

        assert found["directory"]["exitCode"] == 73
        assert "readOnly" in found["directory"]["fix"]


class TestTheVerb:
    def test_beside_a_running_agent_nothing_changes(self, mesh, ca_raw):
        mesh.put(ca_raw)
        environ = {**mesh.environ, "CERTAGENT_SERVER_ADDRESS": f"127.0.0.1:{free_port()}"}
        with running(**environ, CERTAGENT_INTERVAL="50ms") as agent:
            agent.until(lambda: published(mesh.home / "ca"))
            before = sorted(os.listdir(mesh.home / "ca"))  # noqa: PTH208 - names alone

            done = certagent("doctor", **environ)

            assert done.code == 0, done.stdout
            assert "A certagent answers" in done.stdout
            assert "published (istiod-ca): version 1" in done.stdout
            assert sorted(os.listdir(mesh.home / "ca")) == before  # noqa: PTH208 - likewise
            assert mesh.leases() == 1, "the agent's own"
            mesh.put(make_root().intermediate().raw())
            agent.until(lambda: len(agent.publications) > 1)
            assert not [each for each in agent.log if each["level"] in ("warning", "error")]
            assert agent.stop() == 0

    def test_the_text_ends_with_the_count_and_has_a_fix_below_each_finding(self, mesh):
        done = certagent("doctor", **mesh.environ)

        lines = done.stdout.splitlines()
        (at,) = [index for index, line in enumerate(lines) if line.startswith("failure")]
        assert "read (istiod-ca): There is no secret" in lines[at]
        assert lines[at + 1].strip().startswith("fix: ")
        assert ", 1 failure" in lines[-1]
        assert (done.code, done.stderr) == (66, "")

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_no_secret_is_shown(self, mesh, ca_raw, form):
        mesh.put(ca_raw)

        done = certagent("doctor", "--format", form, **mesh.environ, CERTAGENT_LOG_LEVEL="debug")

        token = mesh.token_file.read_text()
        said = done.stdout + done.stderr
        assert "GET /v1/" in done.stderr
        assert not any(part in said for part in token.split("."))
        assert "PRIVATE KEY" not in said
        assert ca_raw.private_key.decode().splitlines()[1] not in said

    @pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    @pytest.mark.parametrize("path", ["/login", "/data/ca"])
    def test_a_stop_leaves_no_login(self, mesh, openbao, ca_raw, stop, path):
        mesh.put(ca_raw)

        def script(asked, _):
            status, body = relayed(asked, openbao)
            if path in asked.path:  # the server has done it, and the doctor has not heard of it yet
                doctor.signal(stop)
            return answer(status, body)

        with (
            ScriptedServer(script) as server,
            running(verb="doctor", **mesh.environ | {"VAULT_ADDR": server.address}) as doctor,
        ):
            code = doctor.process.wait(15)

        paths = [each.path.partition("?")[0] for each in server.asked]
        assert paths[-1] == "/v1/auth/token/revoke-self"
        assert mesh.leases() == 0
        # Who hangs up has not asked for an end: the checks are bounded, and go on to theirs.
        assert code == (0 if stop == signal.SIGHUP else 143)

    def test_a_configuration_with_faults_is_told_whole(self, tmp_path):
        path = tmp_path / "certagent.yaml"
        path.write_text("bundles: []\nvaut: {}\nlog: {level: loud}\n")

        done = certagent("doctor", "--config", path, "--format", "json")

        shown = json.loads(done.stdout)
        assert done.code == shown["exitCode"] == 78
        assert {each["name"] for each in shown["checks"]} == {"configuration"}
        assert len(shown["checks"]) > 1
        assert all(each["fix"] for each in shown["checks"])

    def test_a_configuration_that_only_a_run_would_refuse(self, mesh, ca_raw):
        mesh.put(ca_raw)
        path = mesh.home / "certagent.yaml"
        bundle = {
            "name": "ca",
            "source": {"vaultKV": {"mount": mesh.mount, "path": "ca"}},
            "output": {"directory": str(mesh.home / "ca")},
            "confirm": {"address": "192.0.2.1:15012"},
        }
        path.write_text(json.dumps({"bundles": [bundle]}))
        environ = {name: text for name, text in mesh.environ.items() if "SOURCE" not in name}
        environ.pop("ROOT_CA_DIR")

        done = certagent("doctor", "--config", path, **environ)

        assert done.code == 78
        assert "failure  configuration" in done.stdout
        assert "ok       read (ca)" in done.stdout

    def test_hooks_and_confirmations_are_looked_at_and_not_run(self, tmp_path):
        bundle = {
            "name": "ca",
            "source": {"files": {"directory": str(tmp_path)}},
            "output": {"directory": str(tmp_path / "ca")},
            "confirm": {"address": "127.0.0.1:15012"},
            "hooks": [{"kind": "exec", "name": "touch", "command": ["touch", str(tmp_path / "x")]}],
        }
        (tmp_path / "certagent.yaml").write_text(json.dumps({"bundles": [bundle]}))

        done = certagent("doctor", "--config", tmp_path / "certagent.yaml")

        assert "ok       configuration" in done.stdout
        assert not (tmp_path / "x").exists()

    def test_a_directory_as_a_source(self, tmp_path, ca_raw):
        source = tmp_path / "certs"
        source.mkdir()
        environ = {"CERTAGENT_SOURCE": f"file:{source}", "ROOT_CA_DIR": tmp_path / "ca"}

        assert certagent("doctor", **environ).code == 66

        for part, name in (
            ("private_key", "ca-key.pem"),
            ("certificate", "ca-cert.pem"),
            ("chain", "cert-chain.pem"),
            ("roots", "root-cert.pem"),
        ):
            (source / name).write_bytes(getattr(ca_raw, part))
        done = certagent("doctor", **environ)
        assert done.code == 0
        assert "history (istiod-ca): The store keeps no history" in done.stdout

    def test_a_reader_that_has_seen_enough_does_not_keep_the_login(self, mesh, ca_raw):
        mesh.put(ca_raw)

        with pytest.MonkeyPatch.context() as patch:
            for name, text in mesh.environ.items():
                patch.setenv(name, str(text))
            generator = vault.results(
                configured(
                    mesh.home,
                    {"vaultKV": {"mount": mesh.mount, "path": "ca"}},
                    vault={"address": mesh.address, "auth": mesh.login},
                ),
                datetime.now(UTC),
                (),
            )
            for result in generator:
                if result.name == "login":
                    break
            assert mesh.leases() == 1
            generator.close()

        assert mesh.leases() == 0
