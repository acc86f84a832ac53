"""Every bad input ends in its exit code and a clear message; what was published stays."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.material import a_set, fields, files, make_root, new_key, private_key_pem
from tests.support.openbao import OpenBao
from tests.support.process import certagent, published

ROOT = make_root()
GOOD = fields(ROOT.intermediate().raw())
CHAIN_AND_ROOT = GOOD["cert_chain"]


def _without(name: str) -> dict[str, object]:
    return {key: value for key, value in GOOD.items() if key != name}


def _expired() -> dict[str, str]:
    return fields(ROOT.intermediate(not_after=datetime.now(UTC) - timedelta(hours=1)).raw())


def _future() -> dict[str, str]:
    return fields(ROOT.intermediate(not_before=datetime.now(UTC) + timedelta(hours=1)).raw())


MATERIAL = {
    "a field is missing": (_without("ca_key"), "'ca_key'"),
    "a field is empty": ({**GOOD, "ca_cert": ""}, "'ca_cert' is empty"),
    "a field is not text": ({**GOOD, "ca_cert": {"a": 1}}, "'ca_cert' is dict"),
    "a field is binary": (
        {**GOOD, "root_cert": "\x00\x01\udcff".encode("utf-8", "replace").decode()},
        "roots",
    ),
    "a field has 10 MiB": ({**GOOD, "root_cert": "x" * (10 << 20)}, "over the limit"),
    "blocks are glued": (
        {**GOOD, "cert_chain": CHAIN_AND_ROOT.replace("-----\n-----", "----------")},
        "chain",
    ),
    "a block is mislabelled": (
        {**GOOD, "root_cert": GOOD["root_cert"].replace("CERTIFICATE", "TRUSTED CERTIFICATE")},
        "TRUSTED CERTIFICATE",
    ),
    "the key does not match": (
        {**GOOD, "ca_key": private_key_pem(new_key()).decode()},
        "does not belong",
    ),
    "the certificate has expired": (_expired(), "expired"),
    "the certificate is not yet valid": (_future(), "not valid before"),
    "the certificate is no CA": (fields(ROOT.intermediate(ca=False).raw()), "CA"),
    "the chain lacks the certificate": ({**GOOD, "cert_chain": GOOD["root_cert"]}, "chain"),
    "another root": ({**GOOD, "root_cert": make_root().pem.decode()}, "root"),
}


@pytest.fixture
def environ(openbao, tmp_path):
    """An agent with a set published, and a store to put something bad into."""
    mount = openbao.kv(1)
    policy = openbao.policy(f"{mount}/istiod/*")
    directory = tmp_path / "ca"
    environ = {
        "VAULT_ADDR": openbao.address,
        "VAULT_TOKEN": openbao.create_token(policy),
        "ROOT_CA_DIR": directory,
        "CERTAGENT_SOURCE": f"vault:{mount}/istiod/certs",
        "CERTAGENT_INIT_DEADLINE": "100ms",
        "CERTAGENT_INTERVAL": "50ms",
    }
    openbao.put_v1(mount, "istiod/certs", GOOD)
    assert certagent("init", **environ).code == 0
    return environ


def put(openbao, environ, values) -> None:
    mount, _, path = environ["CERTAGENT_SOURCE"].removeprefix("vault:").partition("/")
    openbao.put_v1(mount, path, values)


def refused(code: int, said: str, environ: dict, *words: object) -> str:
    """Run `init`, see the code and the message, and that the directory is as it was."""
    before = published(Path(environ["ROOT_CA_DIR"]))
    done = certagent(*(words or ("init",)), **environ)
    assert done.code == code, done.stderr
    fatal = done.stderr[done.stderr.rindex("certagent: ") :]
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert published(Path(environ["ROOT_CA_DIR"])) == before
    return fatal


@pytest.mark.parametrize("case", MATERIAL)
def test_material_that_would_not_work_is_65(openbao, environ, case):
    values, said = MATERIAL[case]
    put(openbao, environ, values)

    refused(65, said, environ)


def test_no_such_secret_is_66(environ):
    refused(
        66, "no-such", {**environ, "CERTAGENT_SOURCE": environ["CERTAGENT_SOURCE"] + "-no-such"}
    )


def test_a_path_that_the_policy_forbids_is_77(openbao, environ):
    mount = environ["CERTAGENT_SOURCE"].removeprefix("vault:").partition("/")[0]

    refused(77, "403", {**environ, "CERTAGENT_SOURCE": f"vault:{mount}/other"})


def test_a_role_that_does_not_exist_is_77(openbao, cluster, environ, tmp_path):
    (tmp_path / "token").write_text(cluster.mint())
    login = {
        "VAULT_TOKEN": None,
        "CERTAGENT_VAULT_AUTH_MOUNT": openbao.kubernetes_auth(cluster),
        "CERTAGENT_VAULT_ROLE": "no-such-role",
        "CERTAGENT_VAULT_TOKEN_FILE": tmp_path / "token",
    }

    refused(77, "no-such-role", {**environ, **login})


def test_the_token_of_another_service_account_is_77(openbao, cluster, environ, tmp_path):
    auth = openbao.kubernetes_auth(cluster)
    openbao.kubernetes_role(auth, "istiod", "default")
    (tmp_path / "token").write_text(cluster.mint(service_account="default"))
    login = {
        "VAULT_TOKEN": None,
        "CERTAGENT_VAULT_AUTH_MOUNT": auth,
        "CERTAGENT_VAULT_ROLE": "istiod",
        "CERTAGENT_VAULT_TOKEN_FILE": tmp_path / "token",
    }

    refused(77, "role 'istiod'", {**environ, **login})


def test_a_missing_token_file_is_77(openbao, environ, tmp_path):
    login = {
        "VAULT_TOKEN": None,
        "CERTAGENT_VAULT_ROLE": "istiod",
        "CERTAGENT_VAULT_TOKEN_FILE": tmp_path / "no-such-file",
    }

    refused(77, "no-such-file", {**environ, **login})


def test_a_dead_server_is_69(environ):
    refused(69, "127.0.0.1:1", {**environ, "VAULT_ADDR": "http://127.0.0.1:1"})


def test_a_sealed_server_is_69(environ):
    with OpenBao() as server:
        server.call("PUT", "sys/seal")

        refused(69, "sealed", {**environ, "VAULT_ADDR": server.address, "VAULT_TOKEN": "anything"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bundels: []", "did you mean `bundles`?"),
        ("refresh: {intervall: 3s}", "did you mean `interval`?"),
        ("vault: {requestTimeout: soon}", "expected a duration"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_78(environ, tmp_path, text, said):
    path = tmp_path / "certagent.yaml"
    path.write_text(text)

    refused(78, said, environ, "init", "--config", path)


def test_a_missing_configuration_is_78(environ, tmp_path):
    refused(78, "cannot be read", environ, "init", "--config", tmp_path / "missing.yaml")


@pytest.mark.parametrize("words", [("init", "--intervall", "3s"), ("nope",), ("check",), ()])
def test_a_wrong_command_line_is_64(environ, words):
    refused(64, "--help", environ, *(words or ("--nope",)))


def test_a_target_that_is_a_symlink_is_73(environ, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()

    done = certagent("init", **{**environ, "ROOT_CA_DIR": tmp_path / "link"})

    assert done.code == 73
    assert "symlink" in done.stderr or "symbolic link" in done.stderr
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_target_that_is_a_file_is_73(environ, tmp_path):
    (tmp_path / "file").write_text("mine")

    assert certagent("init", **{**environ, "ROOT_CA_DIR": tmp_path / "file"}).code == 73
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_volume(tmp_path):
    """A tmpfs of one page per file that must fit, as an emptyDir in memory with a small limit."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=28k", "certagent-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here; tests/unit/sinks injects ENOSPC everywhere")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_volume_is_73_and_keeps_what_is_published(openbao, environ, small_volume):
    environ = {**environ, "ROOT_CA_DIR": small_volume}
    assert certagent("init", **environ).code == 0
    (small_volume / "filler").write_bytes(b"x" * 4096)
    put(openbao, environ, fields(a_set()))

    refused(73, "the volume is full", environ)


def test_a_read_only_volume_is_73_and_keeps_what_is_published(openbao, environ, small_volume):
    environ = {**environ, "ROOT_CA_DIR": small_volume}
    assert certagent("init", **environ).code == 0
    put(openbao, environ, fields(a_set()))
    subprocess.run(["mount", "-o", "remount,ro", str(small_volume)], check=True)

    refused(73, "a read-only file system", environ)


class TestCheck:
    @pytest.fixture
    def directory(self, tmp_path):
        for name, data in files(ROOT.intermediate().raw()).items():
            (tmp_path / name).write_bytes(data)
        return tmp_path

    def test_a_good_directory_is_0(self, directory):
        assert certagent("check", directory).code == 0

    def test_a_bad_one_is_65_with_its_code(self, directory):
        (directory / "ca-key.pem").write_bytes(private_key_pem(new_key()))

        done = certagent("check", directory)

        assert done.code == 65
        assert "key-mismatch" in done.stdout

    def test_a_missing_file_is_65_and_named(self, directory):
        (directory / "ca-key.pem").unlink()

        done = certagent("check", directory)

        assert done.code == 65
        assert "ca-key.pem" in done.stdout

    def test_an_empty_directory_is_66(self, tmp_path):
        assert certagent("check", tmp_path).code == 66

    def test_a_missing_directory_is_66(self, tmp_path):
        assert certagent("check", tmp_path / "missing").code == 66
