"""A disk that fails under the agent, in either layout, met by a running agent and by newborn ones.

What was published stays, whole; the fault is told with its cause; `init` fails with 73; and once
the fault has ended the newest set is published, without a restart.
"""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING

import pytest

from tests.support.effort import effort
from tests.support.oracle import NOTHING
from tests.support.process import until
from tests.support.sites import LAYOUTS, Site
from tests.support.volumes import held_back, mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.support.process import Running

CANNOT_WRITE = 73


@dataclass(frozen=True)
class Fault:
    """`act(site, agent)` is the fault while it lasts; `says` is what the agent tells of it.

    `volume` are the options of a tmpfs that the output lies on, `prefix` is what an agent is
    started with that is to meet the fault. `takes` tells that what was published is out of reach
    meanwhile, whatever an agent does.
    """

    act: Callable[[Site, Running | None], AbstractContextManager[object]]
    says: str
    volume: str = ""
    prefix: Callable[[], tuple[str, ...]] = tuple
    takes: bool = False
    layouts: tuple[str, ...] = LAYOUTS

    def on(self, site: Site) -> AbstractContextManager[None]:
        """The volume that the fault needs."""
        stack = ExitStack()
        if self.volume:
            stack.enter_context(mounted(site.volume, "-t", "tmpfs", "-o", self.volume, "tmpfs"))
            site.output.mkdir()
        return stack


def _fill(write):
    """Call `write` until there is no room for another."""
    for number in count():
        try:
            write(number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


@contextmanager
def _full(site, agent):
    filler = site.volume / "somebody-elses-file"
    with filler.open("wb", buffering=0) as file:
        _fill(lambda _: file.write(b"." * 4096))
    yield
    filler.unlink()


@contextmanager
def _out_of_inodes(site, agent):
    filler = site.volume / "somebody-elses-directory"
    filler.mkdir()
    _fill(lambda number: (filler / str(number)).touch())
    yield
    shutil.rmtree(filler)


@contextmanager
def _read_only(site, agent):
    def remount(how):
        command = ["mount", "-o", f"remount,{how}", site.volume]
        # A file that is open for writing, in the midst of a publication, makes the mount busy.
        until(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)

    remount("ro")
    yield
    remount("rw")


@contextmanager
def _small_files(site, agent):
    """No file may grow beyond 100 bytes: what is written is written short, then not at all."""
    pid = agent.process.pid if agent else 0
    with ExitStack() as stack:
        if pid:
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (100, before[1]))
            stack.callback(resource.prlimit, pid, resource.RLIMIT_FSIZE, before)
        yield


@contextmanager
def _forbidden(site, agent):
    site.output.chmod(0o555)
    yield
    site.output.chmod(0o755)


@contextmanager
def _link_in_its_place(site, agent):
    elsewhere, aside = site.home / "elsewhere", site.volume / "aside"
    elsewhere.mkdir()
    site.output.rename(aside)
    site.output.symlink_to(elsewhere)
    yield
    assert list(elsewhere.iterdir()) == [], "a key was led elsewhere"
    site.output.unlink()
    aside.rename(site.output)


@contextmanager
def _file_in_its_place(site, agent):
    aside = site.volume / "aside"
    site.output.rename(aside)
    site.output.write_text("not a directory")
    yield
    site.output.unlink()
    aside.rename(site.output)


@contextmanager
def _foreign_file(site, agent):
    """An entry under the name of a file of ours, as `kubectl cp` would leave it."""
    name = site.output / "ca-cert.pem"
    name.unlink(missing_ok=True)
    name.write_text("somebody else's")
    yield
    assert name.read_text() == "somebody else's"
    name.unlink()


@contextmanager
def _foreign_version(site, agent):
    """A directory whose name could be a version's, with something of somebody else's in it."""
    version = site.output / "v99"
    version.mkdir()
    (version / "notes").write_text("somebody else's")
    yield
    assert (version / "notes").read_text() == "somebody else's"
    shutil.rmtree(version)


@contextmanager
def _foreign_swap(site, agent):
    """Somebody else publishes there: the link that is swapped leads to what is not ours."""
    link, theirs = site.output / site.link, site.output / "theirs"
    ours = link.readlink() if link.is_symlink() else None
    theirs.mkdir()
    link.unlink(missing_ok=True)
    link.symlink_to(theirs.name)
    yield
    link.unlink()
    theirs.rmdir()
    if ours:
        link.symlink_to(ours)


FAULTS = {
    "full": Fault(_full, "the volume is full", volume="size=64k"),
    "out of inodes": Fault(_out_of_inodes, "the volume is full", volume="nr_inodes=24"),
    "read-only": Fault(_read_only, "read-only file system", volume="size=1m"),
    "a limit on files": Fault(
        _small_files, "too large", prefix=lambda: ("prlimit", "--fsize=100:unlimited")
    ),
    "forbidden": Fault(_forbidden, "has no permission", prefix=held_back),
    "a link in its place": Fault(_link_in_its_place, "is a symbolic link", takes=True),
    "a file in its place": Fault(_file_in_its_place, "is not a directory", takes=True),
    "a foreign file": Fault(_foreign_file, "not made by certagent", layouts=("istiod",)),
    "a foreign version": Fault(_foreign_version, "not made by certagent", layouts=("gateway",)),
    "a foreign swap": Fault(_foreign_swap, "not made by certagent", takes=True),
}
_ONE_OR_BOTH = effort(1, 2)
"""The layouts share what meets a disk: the usual run tries one of them with each fault, in turn."""

FAULTS_AND_LAYOUTS = [
    pytest.param(layout, fault, id=f"{name}-{layout}")
    for turn, (name, fault) in enumerate(FAULTS.items())
    for layout in (fault.layouts[turn % 2 :] + fault.layouts)[:_ONE_OR_BOTH]
]


EITHER = LAYOUTS[:_ONE_OR_BOTH]


def _in_turn(found):
    """The sets that were found, without what a reader found while they were out of reach."""
    return [name for name, _ in groupby(each for each in found if each != NOTHING)]


@pytest.mark.parametrize(("layout", "fault"), FAULTS_AND_LAYOUTS)
def test_a_running_agent_keeps_its_set_and_publishes_the_newest_once_the_fault_ends(
    tmp_path, layout, fault
):
    site = Site(tmp_path, layout)
    prefix = () if fault.act is _small_files else fault.prefix()
    site.push("first")
    with (
        fault.on(site),
        site.oracle(may_vanish=fault.takes) as oracle,
        site.run(prefix) as agent,
    ):
        oracle.until("first")
        with fault.act(site, agent):
            site.push("second")
            told = agent.until(lambda: agent.logged(fault.says, level="error"))[0]
            assert told["fault"] == "OutputError"
            assert told["published"].endswith(" stays")
            assert oracle.now == (NOTHING if fault.takes else "first")
            site.push_and_see_read("third")
        oracle.until("third")
        agent.until(lambda: agent.logged("recovered"))
        agent.until(lambda: site.is_tidy)
        assert agent.stop() == 0
    assert _in_turn(oracle.found) == ["first", "third"]


@pytest.mark.parametrize(("layout", "fault"), FAULTS_AND_LAYOUTS)
def test_a_newborn_fails_with_the_cause_and_leaves_nothing_behind(tmp_path, layout, fault):
    site = Site(tmp_path, layout)
    site.push("first")
    with fault.on(site), site.oracle() as oracle:
        with fault.act(site, None):
            failed = site.init(fault.prefix())
        assert failed.code == CANNOT_WRITE
        assert fault.says in failed.stderr
        assert list(site.output.iterdir()) == []
    assert oracle.found == []


@pytest.mark.parametrize("name", ["full", "a link in its place"])
def test_a_newborn_that_may_wait_publishes_once_the_fault_has_ended(tmp_path, name):
    site, fault = Site(tmp_path, "istiod"), FAULTS[name]
    site.push("first")
    with fault.on(site), site.oracle() as oracle:
        with fault.act(site, None):
            stack = ExitStack()
            agent = stack.enter_context(site.run(verb="init"))
            agent.until(lambda: agent.logged(fault.says))
        with stack:
            assert agent.process.wait(20) == 0
    assert oracle.found == ["first"]


@pytest.mark.parametrize(
    ("layout", "name"), [("istiod", "full"), ("gateway", "read-only"), ("istiod", "forbidden")]
)
def test_an_agent_that_is_born_again_meanwhile_serves_what_is_there(tmp_path, layout, name):
    site, fault = Site(tmp_path, layout), FAULTS[name]
    site.push("first")
    with fault.on(site), site.oracle() as oracle:
        assert site.init().code == 0
        oracle.until("first")
        site.push("second")
        with fault.act(site, None), site.run(fault.prefix()) as agent:
            agent.until(lambda: agent.logged("found a good set"))
            told = agent.until(lambda: agent.logged(fault.says, level="error"))[0]
            assert told["published"].endswith(" stays")
    assert oracle.found == ["first"]


@pytest.mark.parametrize("layout", EITHER)
def test_a_directory_that_was_removed_is_made_again_with_the_newest_set(tmp_path, layout):
    site = Site(tmp_path, layout)
    site.push("first")
    with site.oracle(may_vanish=True) as oracle, site.run() as agent:
        oracle.until("first")
        site.push("second")
        agent.until(lambda: len(agent.publications) == 2)
        shutil.rmtree(site.output)
        agent.until(lambda: agent.logged("was removed or replaced"))
        oracle.until("second")
        agent.until(lambda: site.is_tidy)
    assert _in_turn(oracle.found) == ["first", "second"]


@pytest.mark.parametrize("layout", EITHER)
def test_another_volume_at_the_same_path_is_published_to_and_so_is_the_one_below_it(
    tmp_path, layout
):
    site = Site(tmp_path, layout)
    site.push("first")
    with site.oracle(may_vanish=True) as oracle, site.run() as agent:
        oracle.until("first")
        with mounted(site.output, "-t", "tmpfs", "tmpfs"):
            agent.until(lambda: agent.logged("was removed or replaced"))
            oracle.until("first")
            site.push("second")
            oracle.until("second")
            site.push("third")
            oracle.until("third")
        agent.until(lambda: site.is_tidy and site.found() == site.sets["third"])
    assert oracle.now == "third"
