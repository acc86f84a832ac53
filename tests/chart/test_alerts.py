"""The alerts in Prometheus' own engine: each fires for what it is named after, and else not.

promtool's clock begins at 0, and a sample is a minute: what ends "in two days" ends at 172800.
"""

from __future__ import annotations

import shutil
import subprocess
from itertools import chain

import pytest
import yaml

from tests.chart.test_monitoring import ISSUED, STORED
from tests.support.chart import rendered

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    not PROMTOOL, reason="there is no promtool: `apt-get install prometheus`"
)

DAY = 86400
HOUR = 60
"""Samples of an hour."""
LONG = 5 * HOUR

PODS = [("east", "istiod-1"), ("east", "istiod-2"), ("west", "istiod-3")]
CA = {"name": "istiod-ca", "source": STORED["source"], "output": {"directory": "/etc/istio-ca"}}
LEAF = {**ISSUED, "name": "leaf", "output": {"directory": "/etc/certagent/leaf"}}
# Windows of two hours: each minute of a test is worked out.
ROTATION = {"distribute": "2h", "retire": "2h", "slack": "30m"}
VALUES = {
    "prometheusRule": {"enabled": True},
    "config": {"bundles": [CA, STORED, LEAF], "rotation": ROTATION},
}
PHASES = ("settled", "distribute", "switch", "early", "hold")


def rules() -> dict[str, object]:
    return rendered(VALUES)["PrometheusRule/certagent"]["spec"]


def series(name: str, values: str, pods=PODS, bundle: str = "istiod-ca", **labels: str):
    """One time series of each pod."""
    for cluster, pod in pods:
        told = {"cluster": cluster, "namespace": "istio-system", "pod": pod, "bundle": bundle}
        shown = ",".join(f'{key}="{text}"' for key, text in {**told, **labels}.items())
        yield {"series": f"certagent_{name}{{{shown}}}", "values": values}


def phases(pods=PODS, **values: str):
    for phase in PHASES:
        yield from series("rotation_phase", values.get(phase, f"0x{LONG}"), pods, phase=phase)


def healthy() -> dict[str, list[dict[str, str]]]:
    """A mesh in a change of roots that takes its time, by metric."""
    turns = f"1x{2 * HOUR} 0x{LONG}", f"0x{2 * HOUR} 1x{2 * HOUR} 0x{LONG}"
    made = [
        *series("bundle_ready", f"1x{LONG}"),
        *series("bundle_ready", f"1x{LONG}", bundle="stored"),
        *series("last_success_timestamp_seconds", f"0+60x{LONG}"),
        *series("last_success_timestamp_seconds", f"0+60x{LONG}", bundle="stored"),
        *series("not_after_timestamp_seconds", f"{400 * DAY}x{LONG}", part="roots"),
        *series("not_after_timestamp_seconds", f"{100 * DAY}x{LONG}", part="certificate"),
        # A third of its life is left, always: it is renewed.
        *series(
            "not_after_timestamp_seconds", f"{DAY}+60x{LONG}", bundle="leaf", part="certificate"
        ),
        *phases(distribute=turns[0], switch=turns[1]),
        *series("root_set_info", f"1x{2 * HOUR}", fingerprint="aa"),
        *series("root_set_info", f"_x{2 * HOUR} 1x{LONG}", fingerprint="bb"),
        # A gateway's roots are those of its own clients.
        *series("root_set_info", f"1x{LONG}", PODS[:2], bundle="stored", fingerprint="cc"),
        *series("root_set_info", f"1x{LONG}", PODS[2:], bundle="stored", fingerprint="dd"),
        *series("unconfirmed", f"0x{LONG}"),
        *series("fallback", f"0x{LONG}"),
        *series("hook_runs_total", f"0+1x{LONG}", hook="tell", outcome="ok"),
        *series("hook_runs_total", f"0x{LONG}", hook="tell", outcome="failed"),
        # A bad push of long ago, which a pod that comes later finds in the history, too.
        *series("refused_total", f"1x{LONG}", PODS[:1], code="key-mismatch"),
        *series("refused_total", f"_x{HOUR} 1x{LONG}", PODS[1:2], code="key-mismatch"),
    ]
    by_metric: dict[str, list[dict[str, str]]] = {}
    for each in made:
        by_metric.setdefault(each["series"].split("{")[0], []).append(each)
    return by_metric


def firing(tmp_path, at: str, *changed: dict[str, str], without: str = "") -> set[str]:
    """Which alerts fire at a time; a metric that is given replaces all of that metric's series."""
    by_metric = healthy()
    for name in {each["series"].split("{")[0] for each in changed} | {f"certagent_{without}"}:
        by_metric.pop(name, None)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [*chain(*by_metric.values()), *changed],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": at,
                        "exp_samples": [{"labels": '{alertname="asked"}', "value": 0}],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(test))
    told = promtool("test", "rules", path).stderr
    _, found, got = told.partition("got:")
    if not found:
        raise AssertionError(told)
    return {word for word in got.replace('"', " ").split() if word.startswith("Certagent")}


def promtool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROMTOOL), *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("at", ["20m", "62m", "2h4m", "4h5m"])
def test_nothing_fires_in_a_healthy_mesh(tmp_path, at):
    assert firing(tmp_path, at) == set()


def test_promtool_has_nothing_to_say_of_the_rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules()))

    done = promtool("check", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


def ready(values: str):
    """One pod is ready so, and the others always."""
    return (
        *series("bundle_ready", values, PODS[:1]),
        *series("bundle_ready", f"1x{LONG}", PODS[1:]),
    )


def succeeded(values: str):
    """One pod succeeds so, and the others always."""
    name = "last_success_timestamp_seconds"
    others = (series(name, f"0+60x{LONG}", PODS[1:]), series(name, f"0+60x{LONG}", bundle="stored"))
    return (*series(name, values, PODS[:1]), *chain(*others))


def ends(days: int):
    return series("not_after_timestamp_seconds", f"{days * DAY}x{LONG}", part="chain")


def one(name: str, values: str, **labels: str):
    """One pod of three."""
    return series(name, values, PODS[:1], **labels)


TWO_HOURS_OF = f"_x{HOUR} 1x{2 * HOUR}"
BEGINS = f"0x{HOUR} 1x{LONG}"
FIRES = [
    ("20 days to go", "20m", ends(20), {"ExpiresIn30Days"}),
    ("5 days to go", "20m", ends(5), {"ExpiresIn30Days", "ExpiresIn7Days"}),
    ("it is over", "20m", ends(0), {"ExpiresIn30Days", "ExpiresIn7Days", "ExpiresIn1Day"}),
    (
        "nothing is issued any more",
        "20m",
        series("not_after_timestamp_seconds", f"{DAY // 4}x{LONG}", bundle="leaf", part="chain"),
        {"NotRenewed"},
    ),
    ("nothing is published for a while", "64m", ready(f"1x{HOUR} 0x{LONG}"), set()),
    ("nothing is published", "67m", ready(f"1x{HOUR} 0x{LONG}"), {"NotReady"}),
    ("the store is down for a while", "64m", succeeded(f"0+60x{HOUR} {HOUR * 60}x{HOUR}"), set()),
    ("the store is down", "67m", succeeded(f"0+60x{HOUR} {HOUR * 60}x{HOUR}"), {"Stale"}),
    ("a first refusal", "62m", one("refused_total", TWO_HOURS_OF, code="path"), {"Refused"}),
    ("a refusal of long ago", "80m", one("refused_total", TWO_HOURS_OF, code="path"), set()),
    (
        "one more refusal",
        "62m",
        one("refused_total", f"1x{HOUR} 2x{LONG}", code="path"),
        {"Refused"},
    ),
    ("nothing may be published for a while", "64m", phases(PODS[:1], hold=BEGINS), set()),
    ("nothing may be published", "67m", phases(PODS[:1], hold=BEGINS), {"RotationHeld"}),
    ("a signer too early", "67m", phases(PODS[:1], early=BEGINS), {"RotationHeld"}),
    ("a change that is not over", "2h20m", phases(distribute=f"1x{LONG}"), set()),
    ("a change that never ends", "2h32m", phases(distribute=f"1x{LONG}"), {"PhaseStuck"}),
    ("an old root that never goes", "2h32m", phases(switch=f"1x{LONG}"), {"PhaseStuck"}),
    (
        "a hook that fails",
        "62m",
        one("hook_runs_total", TWO_HOURS_OF, hook="tell", outcome="failed"),
        {"HookFailing"},
    ),
    (
        "a hook that takes too long, again",
        "62m",
        one("hook_runs_total", f"4x{HOUR} 5x{LONG}", hook="tell", outcome="timeout"),
        {"HookFailing"},
    ),
    ("a reader that is deaf", "62m", one("unconfirmed", BEGINS), {"Unconfirmed"}),
    ("a fallback", "67m", one("fallback", BEGINS), {"Fallback"}),
    (
        "a replica that stays behind",
        "20m",
        chain(
            series("root_set_info", "1x99", PODS[:1], fingerprint="aa"),
            series("root_set_info", "1x99", PODS[1:2], fingerprint="bb"),
        ),
        {"ReplicasDisagreeOnRoots"},
    ),
    (
        "a cluster that stays behind",
        "61m",
        chain(
            series("root_set_info", "1x99", PODS[:2], fingerprint="aa"),
            series("root_set_info", "1x99", PODS[2:], fingerprint="bb"),
        ),
        {"ClustersDisagreeOnRoots"},
    ),
]


@pytest.mark.parametrize(
    ("at", "changed", "alerts"), [case[1:] for case in FIRES], ids=[case[0] for case in FIRES]
)
def test_an_alert_fires_for_what_it_is_named_after(tmp_path, at, changed, alerts):
    assert firing(tmp_path, at, *changed) == {f"Certagent{name}" for name in alerts}


@pytest.mark.parametrize(("at", "alerts"), [("20m", {"CertagentNoSuccess"}), ("4m", set())])
def test_a_store_that_is_down_since_the_agent_was_started_is_told(tmp_path, at, alerts):
    """A restarted agent finds its set published, and has no success that could grow old."""
    fired = firing(tmp_path, at, without="last_success_timestamp_seconds")

    # At the start of Prometheus itself, every counter is new.
    assert fired - {"CertagentRefused"} == alerts
