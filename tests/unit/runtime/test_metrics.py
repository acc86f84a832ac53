"""The exposition, read back with Prometheus's own parser."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from certagent import __version__
from certagent.runtime.metrics import FAMILIES, PHASES, exposition
from certagent.runtime.status import AgentStatus, BundleStatus

EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)
SUCCESS = datetime(2026, 11, 21, 22, 54, 54, tzinfo=UTC)
BUNDLE = BundleStatus(
    name="istiod-ca",
    ready=True,
    phase="settled",
    version="5",
    root_set="ab12",
    not_after={"certificate": EXPIRY, "roots": EXPIRY},
    last_success=SUCCESS,
    published=3,
    refused={"key-mismatch": 2, "part-empty": 1},
)


def status(*bundles, requests=None, logins=None):
    return AgentStatus(bundles, 0.0, 1.0, requests or {}, logins or {})


def samples(exposed):
    """Return the value of each series, by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposed.decode())
        for sample in family.samples
    }


def series(name, **labels):
    return (name, *sorted(labels.items()))


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("certagent_bundle_ready", {}, 1),
        ("certagent_last_success_timestamp_seconds", {}, SUCCESS.timestamp()),
        ("certagent_not_after_timestamp_seconds", {"part": "certificate"}, EXPIRY.timestamp()),
        ("certagent_not_after_timestamp_seconds", {"part": "roots"}, EXPIRY.timestamp()),
        ("certagent_published_total", {}, 3),
        ("certagent_refused_total", {"code": "key-mismatch"}, 2),
        ("certagent_refused_total", {"code": "part-empty"}, 1),
        ("certagent_rotation_phase", {"phase": "settled"}, 1),
        ("certagent_rotation_phase", {"phase": "hold"}, 0),
        ("certagent_root_set_info", {"fingerprint": "ab12"}, 1),
        ("certagent_version_info", {"version": "5"}, 1),
    ],
)
def test_a_bundle_s_state_is_a_series(name, labels, value):
    exposed = samples(exposition(status(BUNDLE)))

    assert exposed[series(name, bundle="istiod-ca", **labels)] == value


def test_dealings_with_stores_are_counted_by_outcome():
    exposed = samples(
        exposition(status(requests={("vault", "ok"): 7}, logins={("vault", "denied"): 1}))
    )

    assert exposed[series("certagent_source_requests_total", source="vault", outcome="ok")] == 7
    assert exposed[series("certagent_logins_total", source="vault", outcome="denied")] == 1


def test_the_build_is_named():
    assert samples(exposition(status()))[series("certagent_build_info", version=__version__)] == 1


def test_what_is_not_known_yet_has_no_series():
    exposed = samples(exposition(status(BundleStatus(name="new"))))

    assert {name for name, *_ in exposed} == {
        "certagent_build_info",
        "certagent_bundle_ready",
        "certagent_fallback",
        "certagent_history_cut",
        "certagent_published_total",
        "certagent_rotation_phase",
    }


@pytest.mark.parametrize("phase", PHASES)
def test_exactly_the_present_phase_is_1(phase):
    exposed = samples(exposition(status(BundleStatus(name="a", phase=phase))))

    phases = {key[2][1]: value for key, value in exposed.items() if key[0].endswith("_phase")}
    assert phases == {name: float(name == phase) for name in PHASES}


def test_every_bundle_has_its_own_series():
    exposed = samples(exposition(status(BundleStatus("a", ready=True), BundleStatus("b"))))

    assert exposed[series("certagent_bundle_ready", bundle="a")] == 1
    assert exposed[series("certagent_bundle_ready", bundle="b")] == 0


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_metric_is_described_and_typed(family):
    exposed = exposition(status(BUNDLE)).decode()
    kind = "counter" if family.name.endswith("_total") else "gauge"

    assert f"# HELP {family.name} {family.help}\n" in exposed
    assert f"# TYPE {family.name} {kind}\n" in exposed
    assert family.help.isprintable()


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, texts, texts)
def test_hostile_values_stay_within_their_label(version, code, source):
    bundle = BundleStatus("a", version=version or "-", refused={code: 1})
    exposed = samples(exposition(status(bundle, requests={(source, "ok"): 1})))

    assert exposed[series("certagent_version_info", bundle="a", version=version or "-")] == 1
    assert exposed[series("certagent_refused_total", bundle="a", code=code)] == 1
    assert exposed[series("certagent_source_requests_total", source=source, outcome="ok")] == 1


def test_a_process_that_is_not_scraped_does_not_load_the_client():
    script = "import sys, certagent.runtime.metrics; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0
