"""The built image in containers, as kubelet would run them: `.ci/image/run` builds it first.

1337:1337, a read-only root, no capabilities, no new privileges, 96 MiB; a volume of root's that
everybody may write to, as an emptyDir is; Vault by the pod's own service-account token.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from certagent import __version__
from tests.support.material import fields, files, make_root
from tests.support.openbao import free_port
from tests.support.process import published, until

IMAGE = os.environ.get("IMAGE", "")
PODMAN = shlex.split(os.environ.get("PODMAN", "podman"))
POD = (
    # The servers of a test are on loopback.
    "--network=host",
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=96m",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)
TOOLS = {
    *("sh", "bash", "dash", "busybox", "env", "cat", "ls", "cp", "chmod", "curl", "wget", "perl"),
    *("apt", "apt-get", "dpkg", "pip", "pip3", "uv", "gcc", "cc", "ld", "as", "make", "su", "sudo"),
}

pytestmark = pytest.mark.skipif(
    not IMAGE, reason="IMAGE names no image: `.ci/image/run` builds one"
)


def podman(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODMAN, *map(str, words)], capture_output=True, text=True, timeout=120, check=check
    )


def python(code: str, *options: str, user: str = "1337:1337") -> subprocess.CompletedProcess[str]:
    """Run Python in a container of the image, as somebody else who has the volume mounted."""
    words = ("--rm", f"--user={user}", "--entrypoint=python", *options, IMAGE, "-c", code)
    return podman("run", *POD, *words, check=False)


@dataclass
class Pod:
    """istiod's pod: what its agent is told, and its volume."""

    options: tuple[str, ...]
    volume: Path
    openbao: object
    mount: str

    def store(self, ca) -> None:
        self.openbao.put(self.mount, "istiod-service/certs", fields(ca.raw()))

    def init(self) -> subprocess.CompletedProcess[str]:
        return podman("run", *POD, "--rm", *self.options, IMAGE, "init", check=False)

    @contextmanager
    def agent(self):
        """A sidecar; yields its container's name and the port of its probes."""
        port = free_port()
        serve = f"--env=CERTAGENT_SERVER_ADDRESS=127.0.0.1:{port}"
        name = podman("run", *POD, "--detach", *self.options, serve, IMAGE, "run").stdout.strip()
        try:
            yield name, port
        finally:
            podman("rm", "--force", "--time=0", name)


@pytest.fixture(scope="module")
def root():
    return make_root()


@pytest.fixture
def pod(openbao, cluster, tmp_path):
    mount, auth = openbao.kv(), openbao.kubernetes_auth(cluster)
    policy = openbao.policy(f"{mount}/data/istiod-service/certs")
    openbao.kubernetes_role(auth, "istiod", policy)
    tokens, volume = tmp_path / "tokens", tmp_path / "istio-ca"
    tokens.mkdir()
    (tokens / "vault").write_text(cluster.mint())
    (tokens / "vault").chmod(0o644)
    volume.mkdir()
    volume.chmod(0o777)
    environ = {
        "VAULT_ADDR": openbao.address,
        "ROOT_CA_DIR": "/etc/istio-ca",
        "CERTAGENT_SOURCE": f"vault:{mount}/istiod-service/certs",
        "CERTAGENT_VAULT_AUTH_MOUNT": auth,
        "CERTAGENT_VAULT_ROLE": "istiod",
        "CERTAGENT_VAULT_TOKEN_FILE": "/var/run/secrets/vault/vault",
        "CERTAGENT_INTERVAL": "200ms",
        "CERTAGENT_INIT_DEADLINE": "10s",
    }
    options = (
        *(f"--env={name}={value}" for name, value in environ.items()),
        f"--volume={volume}:/etc/istio-ca",
        f"--volume={tokens}:/var/run/secrets/vault:ro",
    )
    return Pod(options, volume, openbao, mount)


def answer(port: int, path: str) -> int:
    """The status of a probe; 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_init_publishes_as_1337_in_a_locked_container(pod, root):
    ca = root.intermediate()
    pod.store(ca)

    done = pod.init()

    assert done.returncode == 0, done.stderr
    assert published(pod.volume) == files(ca.raw())
    key = (pod.volume / "ca-key.pem").stat()
    assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (1337, 1337, 0o600)


def test_init_says_why_it_fails_with_its_own_exit_code(pod):
    done = pod.init()

    assert done.returncode == 66, done.stderr
    assert "istiod-service/certs" in done.stderr


def test_run_follows_the_store_and_ends_when_it_is_asked_to(pod, root):
    first, second = root.intermediate(), root.intermediate()
    pod.store(first)

    with pod.agent() as (name, port):
        until(lambda: answer(port, "/readyz") == 200, 60, lambda: podman("logs", name).stderr)
        assert answer(port, "/livez") == 200
        assert published(pod.volume) == files(first.raw())
        pod.store(second)
        until(lambda: published(pod.volume) == files(second.raw()))
        podman("stop", "--time=15", name)
        (container,) = json.loads(podman("inspect", name).stdout)

    assert container["State"]["ExitCode"] == 0
    assert container["State"]["OOMKilled"] is False


def test_the_agent_has_no_right_that_it_could_lose(pod, root):
    pod.store(root.intermediate())

    with pod.agent() as (name, port):
        until(lambda: answer(port, "/readyz") == 200, 60, lambda: podman("logs", name).stderr)
        (container,) = json.loads(podman("inspect", name).stdout)
        status = Path(f"/proc/{container['State']['Pid']}/status").read_text()

    told = {line.partition(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert set(told["Uid"]) == set(told["Gid"]) == {"1337"}
    assert int(told["CapEff"][0], 16) == int(told["CapBnd"][0], 16) == 0
    assert told["NoNewPrivs"] == ["1"]
    assert told["Seccomp"] == ["2"]


def test_a_reader_as_1337_reads_the_set_and_cannot_write_it(pod, root):
    ca = root.intermediate()
    pod.store(ca)
    assert pod.init().returncode == 0
    mounted = f"--volume={pod.volume}:/etc/istio-ca:ro"

    done = python("print(open('/etc/istio-ca/ca-key.pem').read(), end='')", mounted)
    assert done.stdout.encode() == files(ca.raw())["ca-key.pem"]

    refused = python("open('/etc/istio-ca/ca-key.pem', 'a')", mounted)
    assert "Read-only file system" in refused.stderr


def test_another_user_cannot_read_the_key(pod, root):
    ca = root.intermediate()
    pod.store(ca)
    assert pod.init().returncode == 0
    mounted = f"--volume={pod.volume}:/etc/istio-ca:ro"

    roots = python(
        "print(open('/etc/istio-ca/root-cert.pem').read(), end='')", mounted, user="1001:1001"
    )
    assert roots.stdout.encode() == files(ca.raw())["root-cert.pem"]

    key = python("open('/etc/istio-ca/ca-key.pem')", mounted, user="1001:1001")
    assert "Permission denied" in key.stderr


def test_there_is_no_tool_in_the_image():
    listing = python(
        "import os\n"
        "for base, below, names in os.walk('/'):\n"
        "    if base == '/': below[:] = set(below) - {'proc', 'sys', 'dev'}\n"
        "    for name in names: print(name, os.access(os.path.join(base, name), os.X_OK))"
    ).stdout
    programs = {line.split()[0] for line in listing.splitlines() if line.endswith("True")}

    assert {"certagent", "python"} <= programs
    assert not programs & TOOLS
    assert "ensurepip" not in listing


def test_nothing_in_the_image_is_the_agents_to_change():
    listing = python(
        "import os, stat\n"
        "for base, below, names in os.walk('/'):\n"
        "    if base == '/': below[:] = set(below) - {'proc', 'sys', 'dev', 'run'}\n"
        "    for path in (os.path.join(base, name) for name in [*below, *names]):\n"
        "        told = os.lstat(path)\n"
        "        loose = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID\n"
        "        if told.st_uid or (told.st_mode & loose and not stat.S_ISLNK(told.st_mode)):\n"
        "            print(path)\n"
        "print('all seen')"
    )

    assert listing.stdout.splitlines() == ["all seen"], listing.stderr


def test_every_module_has_byte_code_at_its_place():
    done = python(
        "import importlib, sys, os\n"
        "for name in ('certagent.agent', 'hvac', 'azure.identity', 'json', 'ssl'):\n"
        "    module = importlib.import_module(name)\n"
        "    assert os.path.exists(module.__cached__), name\n"
        "    assert module.__spec__.loader.get_code(name).co_filename == module.__file__, name\n"
    )

    assert done.returncode == 0, done.stderr


def test_the_image_tells_what_it_is():
    (image,) = json.loads(podman("image", "inspect", IMAGE).stdout)
    config = image["Config"]

    assert config["User"] == "1337:1337"
    assert config["Entrypoint"] == ["certagent"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_scanners_find_the_packages_that_the_libraries_are_of():
    listing = python("import os; print(*os.listdir('/var/lib/dpkg/status.d'))").stdout.split()

    assert {"libc6", "zlib1g"} <= set(listing)
    assert any(name.startswith("libssl3") for name in listing)
