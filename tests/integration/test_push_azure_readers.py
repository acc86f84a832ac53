"""Pods that read in the middle of a push to Key Vault, and after one that was killed there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from certagent.sources.azure.history import TAG
from tests.support.azure.faults import hangs, meanwhile
from tests.support.azure.operator import Pusher, store
from tests.support.azure.pod import Pod
from tests.support.effort import effort
from tests.support.material import files, make_root, new_key
from tests.support.process import published, running, until

A, KEY = make_root(), new_key()
OLD = A.intermediate(key=KEY, not_before=datetime(2025, 2, 1, tzinfo=UTC)).raw()
RENEWED = A.intermediate(key=KEY, not_before=datetime(2025, 3, 1, tzinfo=UTC)).raw()
"""For the same key: each part of it fits the old set, and only the tags tell a mixture."""


@pytest.fixture
def pod(azure, tmp_path):
    return Pod(azure, "public", tmp_path)


@pytest.fixture
def vault(pod):
    return pod.vault


@pytest.fixture
def pusher(vault, tmp_path):
    return Pusher(vault, tmp_path)


WAYS = {
    "pushed before-list": ({TAG: "X"}, True),
    "by hand before-get": ({}, False),
    **effort({}, {"pushed before-get": ({TAG: "X"}, False), "by hand before-list": ({}, True)}),
}


@pytest.mark.parametrize(("tags", "may_list"), WAYS.values(), ids=WAYS)
def test_at_each_moment_pods_have_the_old_set_or_the_new_one(pod, pusher, tmp_path, tags, may_list):
    store(pod.vault, OLD, created_on=pod.start, tags=tags)
    if not may_list:
        pod.vault.revoke(pod.app, "list")
    newborns = [tmp_path / f"newborn-{number}" for number in range(4)]
    seen = []

    def look():
        polls = len(pod.requests)
        newborn = newborns[len(seen)]
        code = pod.init(ROOT_CA_DIR=newborn).code
        until(lambda: len(pod.requests) >= polls + 16)
        seen.append((published(pod.directory), code, published(newborn)))

    with pod.run() as agent:
        agent.until(lambda: agent.publications)
        pod.azure.faults.inject(meanwhile(look), method="PUT", times=4)

        done = pusher.push(RENEWED)

        assert done.code == 0, done.stderr
        agent.until(lambda: published(pod.directory) == files(RENEWED))
        agent.stop()
    old = files(OLD)
    whole, waiting = (old, 0, old), (old, 65, {})
    assert seen == [whole, *[whole if may_list else waiting] * 3]
    assert len(agent.publications) == 2


@pytest.mark.parametrize("at", effort(["ca-cert"], ["cert-chain", "ca-cert"]))
def test_after_a_push_that_was_killed_the_old_set_stays_and_the_next_push_is_whole(
    pod, vault, pusher, at
):
    store(vault, OLD, created_on=pod.start)
    fault = pod.azure.faults.inject(hangs, method="PUT", path=at, times=None)
    words = (pusher.source, "--from", pusher.directory(files(RENEWED)))
    with running(*words, verb="push", **pusher.environ) as push:
        push.until(lambda: ("PUT", f"/secrets/{at}", None) in pod.azure.requests(vault))
        push.process.kill()
        push.process.wait(10)
    fault.times = 0
    assert (pod.init().code, published(pod.directory)) == (0, files(OLD))

    done = pusher.push(RENEWED)

    assert (done.code, "was read back" in done.stdout) == (0, True)
    assert (pod.init().code, published(pod.directory)) == (0, files(RENEWED))
