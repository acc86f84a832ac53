"""What a hook is, which events it wants, and what it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from certagent.errors import ConfigurationError
from certagent.runtime.hooks import Exec, Hook, Http, stagger
from tests.support.events import EVENT, ROOTS


def hook(**how):
    return Hook("istiod-ca", "tell", Exec(("true",)), **how)


# Which events


@pytest.mark.parametrize(
    ("on", "changed", "wanted"),
    [
        ("any", ("crls",), True),
        ("certificate", ("certificate",), True),
        ("certificate", ("chain",), True),
        ("certificate", ("private_key",), True),
        ("certificate", ("roots", "crls"), False),
        ("roots", ("certificate", "roots"), True),
        ("roots", ("private_key", "certificate", "chain"), False),
    ],
)
def test_a_hook_wants_the_changes_that_it_is_for(on, changed, wanted):
    assert hook(on=on).wants(replace(EVENT, changed=changed)) is wanted


def test_a_hook_wants_nothing_of_another_bundle():
    assert not hook().wants(replace(EVENT, bundle="ingress"))


def test_a_hook_is_told_of_unconfirmed_sets_only_if_it_asks():
    unconfirmed = replace(EVENT, name="unconfirmed")

    assert not hook().wants(unconfirmed)
    assert hook(events=("published", "unconfirmed")).wants(unconfirmed)
    assert not hook(events=("unconfirmed",)).wants(EVENT)


# What it is told


def test_an_event_is_one_line_of_json():
    body = EVENT.body()

    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    assert json.loads(body) == {
        "event": "published",
        "bundle": "istiod-ca",
        "version": "5",
        "changed": ["private_key", "certificate", "chain"],
        "subject": "O=Istio,CN=Intermediate CA,L=cluster1",
        "serial": "0A",
        "sha256": "ab" * 32,
        "sha256Before": "01" * 32,
        "rootSet": "cd" * 32,
        "rootSetBefore": "cd" * 32,
        "notAfter": "2027-01-02T03:04:05Z",
        "phase": "switch",
        "directory": "/etc/istio-ca",
        "reason": "",
    }


def test_times_are_told_in_utc():
    abroad = EVENT.not_after.astimezone(timezone(timedelta(hours=8)))

    assert json.loads(replace(EVENT, not_after=abroad).body())["notAfter"] == "2027-01-02T03:04:05Z"


def test_an_event_is_told_to_scripts_in_variables():
    assert EVENT.variables() == {
        "CERTAGENT_EVENT": "published",
        "CERTAGENT_BUNDLE": "istiod-ca",
        "CERTAGENT_VERSION": "5",
        "CERTAGENT_CHANGED": "private_key certificate chain",
        "CERTAGENT_SHA256": "ab" * 32,
        "CERTAGENT_ROOT_SET": "cd" * 32,
        "CERTAGENT_PHASE": "switch",
        "CERTAGENT_DIRECTORY": "/etc/istio-ca",
    }


def test_no_variable_of_an_event_configures_an_agent():
    from certagent.config.settings import SETTINGS  # noqa: PLC0415 - the one test that needs it

    assert not EVENT.variables().keys() & {setting.variable for setting in SETTINGS}


def test_who_missed_an_event_is_told_all_that_changed_since_it_was_told():
    told = ROOTS.since(EVENT)

    assert told.version == "6"
    assert told.changed == ("private_key", "certificate", "chain", "roots")
    assert told.sha256_before == EVENT.sha256_before
    assert told.root_set_before == EVENT.root_set_before


# Where http goes


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/certagent?x=1",
        "https://10.0.0.1:8443",
        "http://127.0.0.1:8080/reload",
        "http://localhost/reload",
        "http://[::1]:8080/reload",
    ],
)
def test_https_goes_anywhere_and_http_to_loopback(url):
    assert Http(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.com/",
        "ftp://127.0.0.1/",
        "https://",
        "https:///path",
        "https://user:secret-word@hooks.example.com/",
        "https://hooks.example.com:99999/",
        "https://[::1/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nX-Injected: 1",
        "https://höoks.example.com/",
        "https://" + "a" * 64 + ".example.com/",
        "https://hooks..example.com/",
    ],
)
def test_any_other_url_is_refused_at_the_start_without_being_shown(url):
    with pytest.raises(ConfigurationError, match="hook's URL is refused") as refused:
        Http(url)

    assert "secret-word" not in str(refused.value)


# Replicas


def test_a_pod_always_waits_the_same_part_of_the_spread():
    assert stagger("istiod-7d4b9c-x2x9p", 300.0) == stagger("istiod-7d4b9c-x2x9p", 300.0)


def test_pods_are_spread_over_the_whole_time():
    waits = sorted(stagger(f"istiod-7d4b9c-{number:05}", 100.0) for number in range(1000))

    assert 0.0 <= waits[0] < 1.0
    assert 99.0 < waits[-1] < 100.0
    assert 45.0 < waits[500] < 55.0


def test_without_a_spread_nobody_waits():
    assert stagger("istiod-7d4b9c-x2x9p", 0.0) == 0.0
