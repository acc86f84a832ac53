"""`certagent demo`, as a newcomer runs it: real servers, real agents, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.support.openbao import OpenBaoError
from tests.support.process import COMMAND, certagent, environment, until

WITHIN = 60.0


def processes_in(directory: Path) -> list[int]:
    """The processes that work in a directory; each child of the demo does."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            working = (entry / "cwd").readlink()
        except OSError:
            continue
        if entry.name.isdigit() and working.is_relative_to(directory):
            found.append(int(entry.name))
    return found


def arguments_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@contextmanager
def demo(home: Path, *words: str, **environ: object):
    """Run the demo with its output in `home/out`, and end it if the test has not."""
    home.mkdir(exist_ok=True)
    temporary = home / "tmp"
    temporary.mkdir()
    with (home / "out").open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, "demo", *words],
            env=environment({"TMPDIR": temporary, **environ}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    process.told = (home / "out").read_text
    process.temporary = temporary
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def until_told(process, text: str) -> None:
    until(lambda: text in process.told() or process.poll() is not None, WITHIN, process.told)
    assert text in process.told()


def nothing_left(process) -> bool:
    return not list(process.temporary.iterdir()) and not processes_in(process.temporary)


def inventory(openbao) -> dict[str, set[str]]:
    """What there is in a Vault: mounts, logins, policies, identities."""

    def keys(path: str) -> set[str]:
        try:
            return set(openbao.call("LIST", path)["data"]["keys"])
        except OpenBaoError as error:
            if error.status != 404:  # an empty list
                raise
            return set()

    return {
        "mounts": set(openbao.call("GET", "sys/mounts")["data"]),
        "logins": set(openbao.call("GET", "sys/auth")["data"]),
        "policies": keys("sys/policies/acl"),
        "entities": keys("identity/entity/id"),
        "aliases": keys("identity/entity-alias/id"),
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """One run of the demo, beside a Vault that VAULT_ADDR names and nobody asked it to use."""
    home = tmp_path_factory.mktemp("demo")
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as bystander:
        bystander.setblocking(False)
        done = certagent(
            "demo",
            timeout=WITHIN,
            TMPDIR=home,
            VAULT_ADDR=f"http://127.0.0.1:{bystander.getsockname()[1]}",
            VAULT_TOKEN="canary-of-a-token",
            CERTAGENT_CONFIG="/nowhere.yaml",
            HTTP_PROXY="http://127.0.0.1:1",
            http_proxy="http://127.0.0.1:1",
        )
        with pytest.raises(BlockingIOError):
            bystander.accept()
    assert done.code == 0, done.stdout + done.stderr
    return done, home, time.monotonic() - started


def test_it_tells_the_whole_story(told):
    done, _, _ = told
    for words in (
        *("cluster1", "cluster2", "rotation"),
        *("ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"),
        "istiod would take this set",
        "version 3 refused",
        "code=key-mismatch",
        "unchanged  root-cert.pem",
        "cluster2-secrets/istiod-service/certs: 403",
        "Cleaned up",
    ):
        assert words in done.stdout
    assert done.stderr == ""


def test_it_shows_the_fingerprints_before_and_after_the_rotation(told):
    before, after = re.findall(r"(?:before|after) +sha256 ([0-9a-f]{64})\n", told[0].stdout)
    assert before != after
    # Each is also that of the intermediate that was made, and in the check or the agent's line.
    assert told[0].stdout.count(before) >= 3
    assert told[0].stdout.count(after) >= 3


def test_its_steps_are_numbered(told):
    steps = [int(step) for step in re.findall(r"^([0-9]+)\. ", told[0].stdout, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) == 10


def test_a_new_root_comes_in_stages_and_its_agent_says_so(told):
    seen = re.findall(
        r"^ +([0-9.]+) s: (\w+) +signer (\w{8})  roots (.+)\n +\S+ INFO  (\w+): version 4 signs",
        told[0].stdout,
        re.MULTILINE,
    )
    times, phases, signers, roots, said = zip(*seen, strict=True)
    assert phases == said == ("distribute", "switch", "settled")
    assert float(times[0]) < 3 <= float(times[1]) < 6 <= float(times[2])
    old, new = set(roots[0].split(" + ")) - {roots[2]}, {roots[2]}
    assert [set(each.split(" + ")) for each in roots] == [old | new, old | new, new]
    assert len(old) == 1
    assert signers[0] != signers[1] == signers[2]


def test_the_timeline_of_a_new_root_is_drawn_with_each_signer_and_each_root(told):
    bars = re.findall(r"^ +(signer|root) +([AB]) (\w{8}) +=+$", told[0].stdout, re.MULTILINE)
    assert [bar[:2] for bar in bars] == [
        ("signer", "A"),
        ("signer", "B"),
        ("root", "A"),
        ("root", "B"),
    ]
    # Each is of a certificate that was made before the reader's eyes.
    assert all(f"sha256   {short}" in told[0].stdout for _, _, short in bars)


def test_it_leaves_no_file_and_no_process(told):
    assert list(told[1].iterdir()) == []
    assert processes_in(told[1]) == []


def test_it_shows_no_key_and_no_token(told):
    assert "PRIVATE KEY" not in told[0].stdout
    assert "eyJ" not in told[0].stdout
    assert "canary" not in told[0].stdout
    assert "VAULT_TOKEN=" not in told[0].stdout


def test_keep_stays_to_play_with_until_it_is_asked_to_end(tmp_path):
    with demo(tmp_path, "--keep") as process:
        until_told(process, "Ctrl-C ends it")
        address, token = re.findall(r"export VAULT_(?:ADDR|TOKEN)=(\S+)", process.told())
        request = Request(f"{address}/v1/sys/mounts", headers={"X-Vault-Token": token})
        with urlopen(request, timeout=10) as answer:
            assert b"kubernetes-cluster1-secrets/" in answer.read()
        running = processes_in(process.temporary)
        assert len(running) == 2
        assert not any(token in arguments_of(pid) for pid in running)
        process.terminate()
        assert process.wait(30) == 0
        assert "Cleaned up: nothing of this is left" in process.told()
        assert nothing_left(process)


def test_what_keep_offers_rotates_once_more(tmp_path):
    with demo(tmp_path, "--keep") as process:
        until_told(process, "Ctrl-C ends it")
        offered = re.search(r"(export PATH=.*?)\n\n   And look", process.told(), re.DOTALL)
        commands = "\n".join(
            line for line in offered[1].splitlines() if line.startswith("      ") or "=" in line
        )
        shell = ["sh", "-euc", commands]
        subprocess.run(shell, check=True, capture_output=True, env=environment({}), timeout=30)
        log = next(process.temporary.glob("*/agent.log"))
        until(lambda: "published bundle=istiod-ca version=5" in log.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert nothing_left(process)


def test_keep_ends_when_the_agent_does(tmp_path):
    with demo(tmp_path, "--keep") as process:
        until_told(process, "Ctrl-C ends it")
        (agent,) = (p for p in processes_in(process.temporary) if "run" in arguments_of(p).split())
        os.kill(agent, signal.SIGKILL)
        assert process.wait(30) == 70
        assert "The agent has ended" in process.told()
        assert nothing_left(process)


def test_a_stop_in_the_midst_leaves_nothing(tmp_path):
    with demo(tmp_path) as process:
        until_told(process, "3. In Vault")
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert "Stopped, and cleaned up." in process.told()
        assert nothing_left(process)


def test_a_kill_ends_its_children_too(tmp_path):
    with demo(tmp_path) as process:
        until_told(process, "It logged in")
        assert len(processes_in(process.temporary)) >= 2
        process.kill()
        until(lambda: not processes_in(process.temporary))


def test_a_reader_that_goes_away_ends_it_cleanly(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "demo"],
        env=environment({"TMPDIR": tmp_path}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(WITHIN) == 128 + signal.SIGPIPE
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


# In a Vault of the user's


def test_a_users_vault_is_as_it_was_afterwards(openbao, tmp_path):
    before = inventory(openbao)
    done = certagent("demo", "--vault", openbao.address, TMPDIR=tmp_path, VAULT_TOKEN=openbao.token)
    assert done.code == 0, done.stderr
    (prefix,) = set(re.findall(r"certagent-demo-[0-9a-f]{8}-", done.stdout))
    assert f"{prefix}kubernetes-cluster1-secrets" in done.stdout
    assert openbao.token not in done.stdout
    assert inventory(openbao) == before
    assert list(tmp_path.iterdir()) == []


def test_a_users_vault_is_as_it_was_after_a_stop(openbao, tmp_path):
    before = inventory(openbao)
    where = ("--vault", openbao.address)
    with demo(tmp_path, *where, VAULT_TOKEN=openbao.token) as process:
        until_told(process, "Every cluster gets its set")
        assert inventory(openbao) != before
        assert openbao.token not in process.told()
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 128 + signal.SIGINT
        assert nothing_left(process)
    assert inventory(openbao) == before


def operator_token(openbao, *paths: str) -> str:
    """A token that may do anything in these paths, of a policy that stays."""
    name = openbao.unique("half-an-operator")
    may = 'capabilities = ["create", "read", "update", "delete", "list", "sudo"]'
    rules = "\n".join(f'path "{path}" {{ {may} }}' for path in paths)
    openbao.call("POST", f"sys/policies/acl/{name}", {"policy": rules})
    return openbao.create_token(name)


def test_a_token_that_may_not_do_it_all_leaves_nothing(openbao, tmp_path):
    token = operator_token(openbao, "sys/mounts/certagent-demo-*")
    before = inventory(openbao)
    done = certagent("demo", "--vault", openbao.address, TMPDIR=tmp_path, VAULT_TOKEN=token)
    assert done.code == 77
    assert "refused to make the login mount certagent-demo-" in done.stderr
    assert inventory(openbao) == before


def test_what_a_token_may_not_remove_is_named(openbao, tmp_path):
    demos = [f"{where}certagent-demo-*" for where in ("", "auth/", "sys/mounts/", "sys/auth/")]
    token = operator_token(openbao, *demos, "sys/policies/acl/certagent-demo-*", "sys/auth")
    before = inventory(openbao)
    done = certagent("demo", "--vault", openbao.address, TMPDIR=tmp_path, VAULT_TOKEN=token)
    assert done.code == 77
    assert f"Left in {openbao.address}: the identity of system:serviceaccount" in done.stderr
    after = inventory(openbao)
    assert {name for name in after if after[name] != before[name]} <= {"entities", "aliases"}


def test_a_token_that_is_not_taken_is_told(openbao, tmp_path):
    done = certagent("demo", "--vault", openbao.address, TMPDIR=tmp_path, VAULT_TOKEN="wrong")
    assert done.code == 77
    assert "refused to look the token up (403" in done.stderr
    assert "wrong" not in done.stderr
