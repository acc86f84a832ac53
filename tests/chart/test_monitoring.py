"""What is watched: every rule and panel is about metrics that the agent has, with their labels."""

from __future__ import annotations

import json
import re
from itertools import chain

import pytest

from certagent.config.decoding import load
from certagent.config.model import RefreshConfig, RotationConfig, seconds
from certagent.kubernetes.overlay import istiod_values
from certagent.material.rotation import Phase
from certagent.runtime.metrics import FAMILIES
from tests.support.chart import DASHBOARD, rendered
from tests.unit.kubernetes.test_overlay import ENVIRON

METRICS = {family.name: set(family.labels) for family in FAMILIES}
SCRAPED = {"pod", "namespace", "cluster"}
"""Labels that Prometheus adds."""


def rules(**values):
    """The alerts, in their order."""
    made = rendered({"prometheusRule": {"enabled": True}, **values})["PrometheusRule/certagent"]
    (group,) = made["spec"]["groups"]
    return group["rules"]


def named(expression: str) -> set[str]:
    """The metrics of an expression."""
    return set(re.findall(r"\bcertagent_\w+", expression))


def selected(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"[{,]\s*(\w+)\s*[=!]~?", expression)
    return {label.strip() for labels in grouped for label in labels.split(",")} | set(matched)


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


ISSUED = {
    "name": "issued",
    "source": {"vaultPKI": {"mount": "pki", "commonName": "Mesh CA", "ttl": "48h"}},
    "output": {"directory": "/etc/istio-ca"},
}
STORED = {
    "name": "stored",
    "kind": "tls",
    "source": {"vaultKV": {"mount": "gateways", "path": "ingress"}},
    "output": {"directory": "/etc/certagent/ingress"},
}
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in rules()),
    *((rule["alert"], rule["expr"]) for rule in rules(config={"bundles": [ISSUED]})),
    *((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]),
]


def test_all_of_it_is_off_by_default():
    assert set(rendered()) == {"ConfigMap/certagent"}


# Rules and panels


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_metric_exists_and_has_the_labels_that_are_asked_for(title, expression):
    metrics = named(expression)

    assert metrics
    assert metrics <= METRICS.keys()
    assert selected(expression) <= SCRAPED.union(*(METRICS[name] for name in metrics))


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_expression_is_balanced(title, expression):
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    assert expression.count('"') % 2 == 0


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_phase_that_is_named_exists(title, expression):
    named_phases = re.findall(r'phase=~?"([^"$]+)"', expression)

    assert set(chain(*(each.split("|") for each in named_phases))) <= set(Phase)


def test_every_metric_is_on_the_dashboard():
    shown = set(
        chain(*(named(target["expr"]) for panel in panels() for target in panel["targets"]))
    )

    assert shown == METRICS.keys() - {"certagent_build_info"}


def test_the_phase_that_is_shown_is_one_that_a_pod_is_in():
    """While a phase changes, replicas are in two: their sum would be a third one."""
    (panel,) = [panel for panel in panels() if panel["type"] == "state-timeline"]
    (target,) = panel["targets"]

    assert target["expr"].startswith("max by (cluster, namespace, bundle) (sum without (phase) (")


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    cells = [
        (x, y)
        for panel in panels()
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


# Alerts


def test_there_is_an_alert_for_everything_that_wants_somebody():
    assert {rule["alert"] for rule in rules()} == {
        "CertagentExpiresIn30Days",
        "CertagentExpiresIn7Days",
        "CertagentExpiresIn1Day",
        "CertagentNotReady",
        "CertagentStale",
        "CertagentNoSuccess",
        "CertagentRefused",
        "CertagentRotationHeld",
        "CertagentPhaseStuck",
        "CertagentHookFailing",
        "CertagentUnconfirmed",
        "CertagentFallback",
        "CertagentReplicasDisagreeOnRoots",
        "CertagentClustersDisagreeOnRoots",
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_about_with_labels_that_it_has(rule):
    told = rule["annotations"]
    used = set(re.findall(r"\$labels\.(\w+)", told["summary"]))
    grouped = re.match(r"(?:time\(\) - )?\w+ by \(([^)]*)\)", rule["expr"])
    had = (
        {label.strip() for label in grouped[1].split(",")}
        if grouped
        else SCRAPED.union(*(METRICS[name] for name in named(rule["expr"])))
    )

    assert used <= had
    assert "bundle" in used
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert len(told["description"]) > 60


def test_the_windows_are_those_of_the_configuration():
    rotation = {"distribute": "2d", "retire": "90m", "slack": "30m", "workloadTTL": "1h"}
    config = {"rotation": rotation, "refresh": {"interval": "2m"}}

    made = {(rule["alert"], rule["expr"]): rule.get("for") for rule in rules(config=config)}

    stuck = {expr: window for (name, expr), window in made.items() if name == "CertagentPhaseStuck"}
    assert {re.search(r'phase="(\w+)"', expr)[1]: window for expr, window in stuck.items()} == {
        "distribute": f"{2 * 86400 + 1800}s",
        "switch": f"{90 * 60 + 1800}s",
    }
    (stale,) = [expr for name, expr in made if name == "CertagentStale"]
    assert stale.endswith("> 1200")
    assert [window for (name, _), window in made.items() if "Clusters" in name] == ["1800s"]


def test_without_a_configuration_the_windows_are_the_agents_defaults():
    distribute, retire = RotationConfig().distribute, RotationConfig().retire
    slack = seconds(RotationConfig().slack)

    made = [rule["for"] for rule in rules() if rule["alert"] == "CertagentPhaseStuck"]
    assert made == [f"{seconds(window) + slack:.0f}s" for window in (distribute, retire)]
    (stale,) = [rule["expr"] for rule in rules() if rule["alert"] == "CertagentStale"]
    assert stale.endswith(f"> {10 * seconds(RefreshConfig().interval):.0f}")


def test_what_vault_issues_is_watched_by_its_own_lifetime():
    """It would always end within 30 days; its roots are stored like any others."""
    made = rules(config={"bundles": [ISSUED, STORED]})

    (renewed,) = [rule["expr"] for rule in made if rule["alert"] == "CertagentNotRenewed"]
    assert renewed.endswith('{bundle="issued", part!="roots"}) - time() < 43200')
    days = [rule["expr"] for rule in made if rule["alert"].startswith("CertagentExpires")]
    assert len(days) == 3
    assert all(
        'unless certagent_not_after_timestamp_seconds{bundle=~"issued"' in each for each in days
    )


def test_only_a_cas_roots_must_agree_over_clusters():
    """A gateway's ca.crt is its own clients'."""
    assert not [rule for rule in rules(config={"bundles": [STORED]}) if "Clusters" in rule["alert"]]


def test_clusters_are_told_apart_by_the_label_that_is_named():
    (rule,) = [
        each
        for each in rules(prometheusRule={"enabled": True, "clusterLabel": "k8s_cluster"})
        if "Clusters" in each["alert"]
    ]

    assert 'k8s_cluster!="", bundle=~"istiod-ca"' in rule["expr"]


def test_a_dot_in_a_bundles_name_stands_for_itself():
    files = {"files": {"directory": "/etc/cacerts"}}
    bundles = [
        {"name": name, "source": files, "output": {"directory": f"/etc/{name}"}}
        for name in ("ca.east", "ca-west")
    ]

    (rule,) = [each for each in rules(config={"bundles": bundles}) if "Clusters" in each["alert"]]

    assert r'bundle=~"ca\\.east|ca-west"' in rule["expr"]


def test_rules_of_one_name_have_labels_of_their_own():
    """Linters refuse rules that look the same; the labels are those of the series anyway."""
    others = {**ISSUED, "name": "second", "output": {"directory": "/etc/istio-ca/second"}}
    made = rules(config={"bundles": [ISSUED, others]})

    told = [(rule["alert"], tuple(sorted(rule["labels"].items()))) for rule in made]
    assert len(set(told)) == len(told)


def test_a_severity_is_text_whatever_it_says():
    expiry = [{"days": 3, "severity": text} for text in ("yes", "a, b: c", "1")]

    made = rules(prometheusRule={"enabled": True, "expiry": expiry})

    assert [rule["labels"]["severity"] for rule in made[:3]] == ["yes", "a, b: c", "1"]


# What finds them


def test_the_pod_monitor_asks_at_the_port_of_the_agents_container(including):
    monitor = rendered({"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor = monitor["PodMonitor/certagent"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    for name in ("nativeSidecar", "sidecar"):
        (container,) = including.templates()[name]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
    # Istio's own charts get the agent by an overlay.
    (overlaid,) = istiod_values(load(None, ENVIRON), ENVIRON)["initContainers"]
    assert endpoint["port"] in {port["name"] for port in overlaid["ports"]}
    assert endpoint["path"] == "/metrics"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"] == {"matchLabels": {"app": "istiod"}}


def test_the_dashboard_is_found_by_its_label():
    made = rendered({"dashboard": {"enabled": True}})["ConfigMap/certagent-dashboard"]

    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(made["data"]["certagent.json"]) == json.loads(DASHBOARD.read_text())
