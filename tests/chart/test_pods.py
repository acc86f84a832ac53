"""The templates in Istio's own pods: no clash, the right order, a valid result."""

from __future__ import annotations

import pytest

from tests.support.chart import rendered
from tests.support.istio_charts import (
    KUBERNETES,
    READERS,
    container,
    covering,
    environment,
    faults,
    pod,
    validate,
)
from tests.support.istio_charts import rendered as istios


def deployment(chart, ours, **more):
    """Istio's Deployment with the native sidecar."""
    return istios(
        chart,
        {
            "initContainers": ours["nativeSidecar"],
            "volumes": ours["volumes"],
            "volumeMounts": ours["readerMounts"],
            "env": {"ROOT_CA_DIR": "/etc/istio-ca"} if chart == "istiod" else {},
            **more,
        },
    )


@pytest.fixture(params=sorted(READERS))
def chart(request):
    return request.param


def test_nothing_clashes_and_the_agent_runs_before_its_reader(including, chart):
    made = deployment(chart, including.templates())

    assert faults(made) == []
    assert [each["name"] for each in pod(made)["initContainers"]] == ["certagent"]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_deployment(including, chart, version):
    validate(deployment(chart, including.templates()), [version])


def test_istiod_reads_where_the_agent_writes_and_cannot_write_there(including):
    made = deployment("istiod", including.templates())
    reader, agent = container(made, "discovery"), container(made, "certagent")
    directory = environment(reader)["ROOT_CA_DIR"]

    assert covering(reader, directory) == {
        "name": "istio-ca",
        "mountPath": directory,
        "readOnly": True,
    }
    assert covering(agent, directory) == {"name": "istio-ca", "mountPath": directory}


def test_agent_and_reader_may_read_each_others_files(including):
    """A key of mode 0600 is for one user: istiod's image and the proxies run as 1337."""
    (agent,) = including.templates()["nativeSidecar"]

    assert agent["securityContext"]["runAsUser"] == 1337
    assert agent["securityContext"]["runAsGroup"] == 1337


def test_before_native_sidecars_an_init_container_and_a_sidecar_do_the_same(including):
    """The gateway chart takes both since 1.27."""
    ours = including.templates()

    made = deployment(
        "gateway", ours, initContainers=ours["initContainer"], additionalContainers=ours["sidecar"]
    )

    assert faults(made) == []
    validate(made)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda ours: ours["volumes"].pop(1), "no volume 'istio-ca'"),
        (lambda ours: ours["readerMounts"][0].pop("readOnly"), "may write to /etc/istio-ca"),
        (lambda ours: ours["nativeSidecar"].clear(), "does not start before its reader"),
    ],
)
def test_what_would_be_wrong_would_be_seen(including, change, fault):
    ours = including.templates()
    change(ours)

    assert any(fault in each for each in faults(deployment("istiod", ours)))


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_what_the_chart_makes_itself(version):
    on = {"dashboard": {"enabled": True, "annotations": {"grafana_folder": "Mesh"}}}

    for document in rendered(on).values():
        validate(document, [version])
