"""The benchmarks as a command: whole processes, a table, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from functools import partial

import pytest

from tests.benchmarks import bundles, keyvault, process, staying
from tests.benchmarks.interleaving import Rounds
from tests.benchmarks.process import ROOT, Failed, Job, publish
from tests.benchmarks.world import World
from tests.support.process import environment, until

FIGURE = r"-?[\d.]+(?: \([\d.]+-[\d.]+\))?"
ONCE = ("start to published, ms", "start to end, ms", "CPU, ms", "peak memory, MiB")
STAYING = (
    "resident memory, MiB",
    "anonymous memory, MiB",
    "CPU, % of a core",
    "requests an hour",
    "requests a poll",
)
WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x'); {then}"


@pytest.fixture(scope="module")
def world():
    with World() as made:
        yield made


@pytest.fixture
def job(tmp_path):
    """A Python program that is to write one file into a volume."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def job_(program: str = WRITE, then: str = "") -> Job:
        command = (sys.executable, "-c", program.format(then=then), str(volume / "file"))
        return Job(command, {}, (volume,), ("file",))

    return job_


def assert_rows(table, measures, *, figures):
    for measure in measures:
        row = rf"^\| {measure} (?:\| {FIGURE} ){{{figures}}}(?:\| (?:\d+\.\d\d|-) )+\|$"
        assert re.search(row, table, re.MULTILINE), measure


def benchmarks(*words: object, **environ: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *map(str, words)],
        cwd=ROOT,
        env=environment(environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_command_prints_tables_and_leaves_nothing_behind(tmp_path):
    done = benchmarks("--runs", 1, "--only", "start", TMPDIR=tmp_path)

    assert done.returncode == 0, done.stderr
    machine, *_ = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ cores? of .+, Python 3\..+, certagent .+, OpenBao .+", machine)
    assert "| once | certagent | bao agent | ratio |" in done.stdout
    assert_rows(done.stdout, ONCE, figures=2)
    assert list(tmp_path.iterdir()) == []


def test_who_stays_is_measured_beside_the_peer(world):
    table = staying.measure(world, Rounds(1, 0.1, warm_ups=0))

    assert table.startswith("| staying, a poll every 0.1s | certagent | bao agent | ratio |")
    assert_rows(table, STAYING, figures=2)


def test_key_vault_is_measured_beside_vault(world):
    table = keyvault.measure(world, Rounds(1, 0.05, warm_ups=0))

    assert table.startswith("| certagent | at Key Vault | at Vault | ratio |")
    assert_rows(table, (*ONCE, *STAYING), figures=2)


def test_growth_is_measured_with_the_number_of_bundles(world, monkeypatch):
    monkeypatch.setattr(bundles, "COUNTS", (1, 2, 3))

    table = bundles.measure(world, Rounds(1, 0.05, warm_ups=0))

    assert table.startswith("| bundles of kind tls in one agent | 1 | 2 | 3 | each further to 2 |")
    assert_rows(table, (*ONCE, *STAYING), figures=5)


def test_a_stop_in_the_middle_leaves_nothing_behind_either(tmp_path):
    words = ("--interval", "30", "--only", "staying")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks", *words],
        cwd=ROOT,
        env=environment({"TMPDIR": tmp_path}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as command:
        try:
            published = until(lambda: [*tmp_path.glob("*/volume-*/..data")])
            command.terminate()
            assert command.wait(20) == 128 + signal.SIGTERM
        finally:
            command.kill()
    assert not published[0].exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--runs", "--interval"])
def test_no_rounds_and_no_interval_are_refused(flag):
    done = benchmarks(flag, 0)

    assert done.returncode == 2
    assert "greater than zero" in done.stderr


def test_the_moment_of_publication_is_told_from_the_end(job):
    cost = publish(job(then="import time; time.sleep(0.2)"))

    assert cost.ended - cost.published > 0.1


def test_the_peak_is_the_childs_own_and_not_its_parents(job):
    ballast = bytearray(300 << 20)

    cost = publish(job())

    assert 0 < cost.peak < len(ballast) / 2


def test_cpu_is_that_of_the_child(job):
    spin = "import time\nwhile time.process_time() < 0.3: pass"

    assert publish(job(WRITE.replace("; {then}", "\n" + spin))).cpu > 0.3


def test_who_ends_and_published_nothing_fails_with_what_it_said(job):
    with pytest.raises(Failed, match=r"did not publish (.|\n)*no such secret"):
        publish(job("import sys; sys.exit('no such secret')"))


def test_who_was_to_stay_and_published_nothing_fails_likewise(job):
    failing = job("import sys; sys.exit('no such secret')")

    with (
        pytest.raises(Failed, match=r"did not publish (.|\n)*no such secret"),
        process.staying(failing),
    ):
        pass


def test_who_ends_in_error_fails_although_it_published(job):
    with pytest.raises(Failed, match="ended with 3"):
        publish(job(then="sys.exit(3)"))


def test_who_stays_is_measured_by_its_own_clock_and_ended(job):
    spin = "\nimport time, signal\nwhile time.process_time() < 0.3: pass\nsignal.pause()"

    with process.staying(job(WRITE.replace("; {then}", spin))) as agent:
        until(partial(lambda agent: agent.cpu > 0.3, agent))
        assert 0 < agent.memory("RssAnon") < agent.memory("VmRSS")

    assert agent.process.returncode is not None


def test_who_publishes_and_does_not_end_is_ended(job, monkeypatch):
    monkeypatch.setattr(process, "DEADLINE", 2.0)

    with pytest.raises(Failed, match="did not end"):
        publish(job(then="import time; time.sleep(600)"))


def test_who_stays_and_does_not_end_when_told_is_ended(job, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "

    with (
        pytest.raises(Failed, match="did not end"),
        process.staying(job(deaf + WRITE, then="signal.pause()")) as agent,
    ):
        pass

    assert agent.process.returncode == -signal.SIGKILL
