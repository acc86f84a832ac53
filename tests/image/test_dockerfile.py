"""The Dockerfile and what it is built from, as far as can be seen without building it."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from certagent import __version__

HOME = Path(__file__).parents[2]
DOCKERFILE = (HOME / "Dockerfile").read_text()
LOCKS = HOME / ".ci" / "image"
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())
WANTED = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "build.lock": PROJECT["build-system"]["requires"],
}


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """The packages of a lock: the version, and the hashes of its files."""
    entries = re.findall(
        r"^([\w.-]+)==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$",
        (LOCKS / name).read_text(),
        re.MULTILINE,
    )
    return {
        canonicalize_name(package): (version, re.findall(r"sha256:\w+", hashes))
        for package, version, hashes in entries
    }


def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "hadolint"), "--no-color", HOME / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_version():
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)

    assert re.fullmatch(r"\S+/python:3\.\d+\.\d+-slim-\w+", base)


def test_the_last_stage_is_empty_but_for_what_the_first_laid_out():
    *_, last = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)

    assert last.startswith("scratch\n")
    assert re.findall(r"^(?:COPY|ADD|RUN) .*$", last, re.MULTILINE) == [
        "COPY --from=build /rootfs /"
    ]
    assert "USER 1337:1337\n" in last
    assert 'ENTRYPOINT ["certagent"]\n' in last


def test_the_image_has_the_version_of_the_package():
    assert f"\nARG VERSION={__version__}\n" in DOCKERFILE


def test_what_is_copied_is_in_the_context_and_nothing_else_is():
    lines = (HOME / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in words.split()
    }

    assert "*" in lines
    assert allowed == copied
    assert all((HOME / path).exists() for path in copied)


@pytest.mark.parametrize("name", WANTED)
def test_the_lock_holds_what_the_project_asks_for(name):
    """Else: `.ci/image/lock` renews it."""
    packages = locked(name)

    for wanted in map(Requirement, WANTED[name]):
        version, _ = packages[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), wanted


@pytest.mark.parametrize("name", WANTED)
def test_every_package_of_the_lock_has_its_version_and_hashes(name):
    lines = (LOCKS / name).read_text().splitlines()
    named = {line.split("==")[0] for line in lines if line[:1].isalpha()}
    packages = locked(name)

    assert set(packages) == set(map(canonicalize_name, named))
    assert all(hashes for _, hashes in packages.values())
