"""Whether a gateway sees every rotation: the watches of three ages of pilot-agent, re-created.

First the re-creation is held against what was measured with Istio's own watch code (tags 1.28.0 and
1.29.0, and the code of 1.31; fsnotify 1.10.1) under the publishing styles of other tools. Then it
watches the gateways' layout.
"""

import itertools
import shutil
import threading

import pytest

from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY, KUBELET
from tests.support.pilot_agent import AGES, CERTIFICATE, ROOT, PilotAgent
from tests.support.process import until
from tests.support.publishing import (
    MUTUAL_TLS,
    TLS,
    Crash,
    FaultyOs,
    entries,
    install,
    publication,
)

ALL = [1, 2, 3, 4, 5, 6]
FIRST = [1]
TWO = [1, 2]


def _write(directory, number, names):
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in publication(number, names).files.items():
        (directory / name).write_bytes(data)


def _swap(link, leads_to):
    new = link.with_name(f"{link.name}_tmp")
    new.symlink_to(leads_to)
    new.rename(link)


# How others publish. Each yields where time may pass for the reader.


def kubelet(directory, number, names, *, deletes=True):
    _write(directory / f"..{number}", number, names)
    _swap(directory / "..data", f"..{number}")
    for name in names:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    yield
    if deletes:
        shutil.rmtree(directory / f"..{number - 1}", ignore_errors=True)


def kubelet_that_keeps(directory, number, names):
    yield from kubelet(directory, number, names, deletes=False)


def renames_key_first(directory, number, names):
    _write(directory / "new", number, names)
    for name in names:
        yield
        (directory / "new" / name).rename(directory / name)


def renames_certificate_first(directory, number, names):
    yield from renames_key_first(directory, number, sorted(names))


def in_place(directory, number, names):
    for name in names:
        directory.mkdir(exist_ok=True)
        with (directory / name).open("wb") as file:
            yield
            file.write(publication(number, names).files[name])
        yield


def directory_link(directory, number, names, *, deletes=True):
    top = directory.parent
    _write(top / f"v{number}", number, names)
    _swap(directory, f"v{number}")
    yield
    if deletes:
        shutil.rmtree(top / f"v{number - 1}", ignore_errors=True)


def directory_link_that_keeps(directory, number, names):
    yield from directory_link(directory, number, names, deletes=False)


def links_into_a_driver(directory, number, names):
    driver = directory.parent / "driver"
    yield from kubelet(driver, number, names)
    directory.mkdir(exist_ok=True)
    for name in names:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(driver / name)


@pytest.fixture(params=["", "below a symlink"])
def parent(request, tmp_path):
    """Where a volume is mounted: also below a symlink, as /var/run is one to /run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    return tmp_path / ("var" if request.param else "run")


# What was measured; below a symlink: in a parent like /var/run -> /run.
#                                      1.28   1.29.0  1.31
MEASURED = {
    (kubelet, False):                  (ALL,   TWO,   ALL),
    (kubelet_that_keeps, False):       (FIRST, FIRST, ALL),
    (renames_key_first, False):        (ALL,   ALL,   ALL),
    (renames_certificate_first, False): (ALL,  ALL,   ALL),
    (in_place, False):                 (ALL,   ALL,   ALL),
    (directory_link, False):           (ALL,   ALL,   ALL),
    (directory_link_that_keeps, False): (FIRST, ALL,  ALL),
    (links_into_a_driver, False):      (ALL,   TWO,   TWO),
    (kubelet, True):                   (ALL,   TWO,   ALL),
    (renames_key_first, True):         (ALL,   TWO,   TWO),
    (in_place, True):                  (ALL,   ALL,   ALL),
    (directory_link, True):            (ALL,   ALL,   ALL),
}  # fmt: skip
MATRIX = [
    pytest.param(style, below, age, seen, id=f"{style.__name__}-{below}-{age}")
    for (style, below), row in MEASURED.items()
    for age, seen in zip(AGES, row, strict=True)
]
WITH_A_CA = {kubelet, renames_key_first, in_place, directory_link}


@pytest.mark.parametrize("is_prompt", [True, False])
@pytest.mark.parametrize(("style", "below", "age", "seen"), MATRIX)
def test_the_agent_sees_what_istios_own_code_was_measured_to_see(
    tmp_path, style, below, age, seen, is_prompt
):
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    directory = tmp_path / ("var" if below else "run") / "certs"
    mutual = style in WITH_A_CA
    names = MUTUAL_TLS if mutual else TLS
    list(style(directory, 1, names))
    with PilotAgent(age, directory, mutual=mutual) as agent:
        for number in ALL[1:]:
            for _ in style(directory, number, names):
                if is_prompt:
                    agent.turn()
            agent.turn()
            agent.turn()
        assert agent.served == dict.fromkeys(agent.served, seen)


# The gateways' layout


@pytest.fixture
def sink(parent):
    opened = AtomicDirectory(parent / "ingress", layout=GATEWAY)
    yield opened
    opened.close()


@pytest.fixture(params=[TLS, MUTUAL_TLS], ids=["simple", "mutual"])
def names(request):
    return request.param


@pytest.fixture(params=AGES)
def gateway(request, parent, sink, names):
    """A gateway that has read the first set."""
    sink.publish(publication(1, names))
    directory = parent / "ingress" / "current"
    with PilotAgent(request.param, directory, mutual=names == MUTUAL_TLS) as agent:
        yield agent


def _served(names, generations):
    return {CERTIFICATE: generations} | ({ROOT: generations} if names == MUTUAL_TLS else {})


@pytest.mark.parametrize(("age", "seen"), [("1.28", ALL), ("1.29.0", TWO), ("1.31", ALL)])
def test_the_kubelets_layout_is_the_wrong_one_for_a_gateway(parent, age, seen):
    sink = AtomicDirectory(parent / "ingress", layout=KUBELET)
    sink.publish(publication(1, TLS))
    with PilotAgent(age, parent / "ingress") as agent:
        for number in ALL[1:]:
            sink.publish(publication(number, TLS))
            sink.tidy()
            agent.turn()
        assert agent.served[CERTIFICATE] == seen
    sink.close()


def test_every_rotation_is_seen(sink, gateway, names):
    for number in ALL[1:]:
        sink.publish(publication(number, names))
        gateway.turn()
    assert gateway.served == _served(names, ALL)


class Interleaved(FaultyOs):
    """The module `os`, with something that happens after each system call."""

    def __init__(self, act):
        self._act = act
        super().__init__()

    def _wrapped(self, name):
        call = super()._wrapped(name)

        def call_and_act(*args, **kwargs):
            result = call(*args, **kwargs)
            self._act()
            return result

        return call_and_act


def test_every_rotation_is_seen_also_by_who_reads_after_each_system_call(
    sink, gateway, names, monkeypatch
):
    install(monkeypatch, Interleaved(gateway.turn))
    for number in ALL[1:]:
        sink.publish(publication(number, names))
        gateway.turn()
    assert gateway.served == _served(names, ALL)


def test_rotations_that_come_faster_than_they_are_read_end_with_the_last(sink, gateway, names):
    for number in ALL[1:]:
        sink.publish(publication(number, names))
    gateway.turn()
    assert gateway.served == _served(names, [1, 6])
    sink.publish(publication(7, names))
    gateway.turn()
    assert gateway.served == _served(names, [1, 6, 7])


def test_a_swap_between_reading_certificate_and_key_is_made_good(sink, gateway, names):
    numbers = itertools.count(3)

    def publish_once():
        gateway.interrupt = lambda: None
        sink.publish(publication(next(numbers), names))

    sink.publish(publication(2, names))
    gateway.interrupt = publish_once
    for _ in range(2):
        gateway.turn()
    assert gateway.served[CERTIFICATE] == [1, 3]
    sink.publish(publication(next(numbers), names))
    gateway.turn()
    assert gateway.served[CERTIFICATE] == [1, 3, 4]


def test_what_the_agent_remembers_of_a_set_is_no_rotation(sink, gateway, names):
    sink.remember({"version": "the same"})
    gateway.turn()
    assert gateway.served == _served(names, FIRST)
    sink.publish(publication(2, names))
    gateway.turn()
    assert gateway.served == _served(names, TWO)


def test_a_publisher_that_dies_between_swap_and_removal_is_made_good_by_the_next(
    sink, gateway, names, parent, monkeypatch
):
    with monkeypatch.context() as patched:
        install(patched, FaultyOs(1, Crash(), calls=("unlink",)))
        with pytest.raises(Crash):
            sink.publish(publication(2, names))
    sink.close()
    again = AtomicDirectory(parent / "ingress", layout=GATEWAY)
    again.read()
    again.close()
    gateway.turn()
    assert gateway.served == _served(names, TWO)
    assert entries(parent / "ingress") == ["current", "v2"]


def test_every_rotation_is_seen_by_a_reader_that_runs_beside_the_publisher(sink, gateway, names):
    ended = threading.Event()

    def run():
        while not ended.wait(0.001):
            gateway.turn()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for number in ALL[1:]:
            sink.publish(publication(number, names))
            until(lambda number=number: all(seen[-1] == number for seen in gateway.served.values()))
    finally:
        ended.set()
        thread.join(10)
    assert gateway.served == _served(names, ALL)
