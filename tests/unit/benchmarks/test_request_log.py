"""What is read of an audit device's file while a server writes it."""

from __future__ import annotations

import json

from tests.support.audit import RequestLog


def entry(path, kind="request", time="2026-07-01T12:00:00Z"):
    return json.dumps({"type": kind, "time": time, "request": {"path": path}}) + "\n"


def test_requests_are_counted_by_path_and_answers_are_not(tmp_path):
    file = tmp_path / "audit.log"
    file.write_text(entry("kv/a") + entry("kv/a", "response") + entry("kv/b") + entry("kv/a"))

    assert RequestLog(file).counts == {"kv/a": 2, "kv/b": 1}


def test_a_line_that_is_under_way_counts_once_it_is_whole(tmp_path):
    file = tmp_path / "audit.log"
    whole = entry("kv/a") + entry("kv/b")
    file.write_text(whole[:-5])
    log = RequestLog(file)

    assert log.counts == {"kv/a": 1}
    file.write_text(whole)
    assert log.counts == {"kv/a": 1, "kv/b": 1}
    assert log.counts == {"kv/a": 1, "kv/b": 1}


def test_requests_have_the_moments_at_which_they_came(tmp_path):
    file = tmp_path / "audit.log"
    came = ["1970-01-01T00:00:01.25Z", "1970-01-01T02:00:02.123456789+02:00"]
    file.write_text(entry("kv/a", time=came[0]) + entry("kv/a", "response", "1970-01-01T00:00:09Z"))
    log = RequestLog(file)

    assert log.arrivals == [1.25]
    file.write_text(file.read_text() + entry("kv/b", time=came[1]))
    assert log.arrivals == [1.25, 2.123456]
    assert log.counts.total() == 2
