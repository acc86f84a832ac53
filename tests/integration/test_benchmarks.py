"""The benchmarks as a command: whole processes, a table, and nothing left behind."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys

import pytest

from tests.benchmarks import bundles, fleet, idle, keyvault, latency, outage, rotation, staying
from tests.benchmarks.__main__ import SCENARIOS
from tests.benchmarks.interleaving import Rounds
from tests.benchmarks.process import ROOT
from tests.benchmarks.table import BEGIN, END, shapes
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
ROTATION = (
    "write to published, ms",
    "old files beside new ones, ms",
    "mixed sets read, by name",
    "mixed sets read, through `..data` where it is",
    "inotify events",
)
OUTAGE = tuple(
    f"{fault}: {measure}"
    for fault in ("503", "resets")
    for measure in ("requests a minute", "over to published, s")
)
FLEET = (
    "begin to all published, ms",
    "requests a second",
    "peak to mean from the begin",
    "peak to mean of the polls",
    "CPU an agent, % of a core",
    "CPU of the server, % of a core",
    "memory an agent, PSS, MiB",
    "anonymous memory an agent, MiB",
)


@pytest.fixture(scope="module")
def world():
    with World() as made:
        yield made


def assert_rows(table, measures, *, figures):
    for measure in measures:
        row = rf"^\| {measure} (?:\| {FIGURE} ){{{figures}}}(?:\| (?:\d+\.\d\d|-) )+\|$"
        assert re.search(row, table, re.MULTILINE), measure


@pytest.fixture(scope="module")
def told():
    """The measures of the README's tables, by title."""
    return shapes((ROOT / "README.md").read_text().partition(BEGIN)[2].partition(END)[0])


def assert_told(table, told):
    """What is printed is what the README shows: otherwise its figures are of another time."""
    ((title, measures),) = shapes(table).items()
    assert told.get(title) == measures, f"run `python -m tests.benchmarks`, and paste: {title}"


def test_the_readme_has_a_table_of_every_scenario(told):
    assert len(told) == len(SCENARIOS)


def mine(table, measure):
    """certagent's figure."""
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {measure} |"))
    return row.split("|")[2].strip()


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


def test_one_command_prints_tables_and_leaves_nothing_behind(tmp_path, told):
    done = benchmarks("--runs", 1, "--only", "start", TMPDIR=tmp_path)

    assert done.returncode == 0, done.stderr
    begin, machine, *_, end = done.stdout.splitlines()
    assert (begin, end) == (BEGIN, END)
    assert re.fullmatch(r"\d+ cores? of .+, Python 3\..+, certagent .+, OpenBao .+", machine)
    assert "| once | certagent | bao agent | ratio |" in done.stdout
    assert_rows(done.stdout, ONCE, figures=2)
    assert_told(done.stdout, told)
    assert list(tmp_path.iterdir()) == []


def test_who_stays_is_measured_beside_the_peer(world, told):
    table = staying.measure(world, Rounds(1, 0.1, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| staying, a poll every 0.1s | certagent | bao agent | ratio |")
    assert_rows(table, STAYING, figures=2)


def test_who_idles_is_measured_beside_the_peer(world, told, monkeypatch):
    monkeypatch.setattr(idle, "INTERVAL", 0.2)

    table = idle.measure(world, Rounds(2, 0.1, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| idle, a poll every 0.2s | certagent | bao agent | ratio |")
    assert_rows(table, ["CPU, % of a core"], figures=2)


def test_rotations_are_read_beside_the_peer(world, told):
    table = rotation.measure(world, Rounds(1, 0.1, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| a rotation, a poll every 0.1s | certagent | bao agent | ratio |")
    assert_rows(table, ROTATION, figures=2)
    assert mine(table, "old files beside new ones, ms") == "0"
    assert mine(table, "mixed sets read, through `..data` where it is") == "0"
    assert 0 < float(mine(table, "inotify events")) <= 3


def test_latency_is_measured_beside_the_peer_who_is_not_waited_for(world, told, monkeypatch):
    monkeypatch.setattr(latency, "PATIENCE", 0.5)

    table = latency.measure(world, Rounds(1, 0.1, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| write to published, s (watched for 0.5) | certagent | bao agent |")
    for kv, how in itertools.product((1, 2), ("a poll every 0.1s", "by default")):
        assert re.search(rf"^\| KV v{kv}, {how} \|", table, re.MULTILINE)
    # certagent's first poll may come at once; `bao agent`'s comes after minutes.
    row = rf"^\| KV v2, by default \| ({FIGURE}|not seen) \| not seen \| - \|$"
    assert re.search(row, table, re.MULTILINE)


def test_outages_are_survived_beside_the_peer(world, told, monkeypatch):
    monkeypatch.setattr(outage, "OUTAGE", 0.5)

    table = outage.measure(world, Rounds(1, 0.1, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| an outage of 0.5 s, a poll every 0.1s | certagent | bao agent |")
    assert_rows(table, OUTAGE, figures=2)


def test_a_fleet_is_measured_beside_the_peers(world, told, monkeypatch):
    monkeypatch.setattr(fleet, "COUNTS", ())
    monkeypatch.setattr(fleet, "POLLS", 1)

    table = fleet.measure(world, Rounds(1, 0.1, warm_ups=0, agents=2))
    assert_told(table, told)

    assert table.startswith("| agents on one server, a poll every 1s, bins of a tenth | 2 |")
    for measure, name in itertools.product(FLEET, ("certagent", "bao agent", "ratio")):
        assert re.search(rf"^\| {measure}, {name} \| (?:{FIGURE}|-) \|$", table, re.MULTILINE)


def test_key_vault_is_measured_beside_vault(world, told):
    table = keyvault.measure(world, Rounds(1, 0.05, warm_ups=0))
    assert_told(table, told)

    assert table.startswith("| certagent | at Key Vault | at Vault | ratio |")
    assert_rows(table, (*ONCE, *STAYING), figures=2)


def test_growth_is_measured_with_the_number_of_bundles(world, told, monkeypatch):
    monkeypatch.setattr(bundles, "COUNTS", (1, 2, 3))

    table = bundles.measure(world, Rounds(1, 0.05, warm_ups=0))
    assert_told(table, told)

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


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--runs", 0), "greater than zero"),
        (("--interval", 0), "greater than zero"),
        (("--agents", 0), "from 1 to 200"),
        (("--agents", 201), "from 1 to 200"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, why):
    done = benchmarks(*words)

    assert done.returncode == 2
    assert why in done.stderr
