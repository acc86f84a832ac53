"""The agent's state as Prometheus metrics: a function of the status, computed when it is asked for.

No counter lives here. What a scrape sees is one frozen `AgentStatus`, so that a gauge and the
counter beside it are of the same moment. A value that is not known yet (no success, no version) has
no series, rather than a 0 that an alert would take for 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certagent import __version__
from certagent.material.rotation import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from certagent.runtime.status import AgentStatus

    Samples = Iterable[tuple[tuple[str, ...], float]]
    """Label values, in the order of the family's labels, and the value."""

PHASES = tuple(phase.value for phase in Phase)
"""The phases that a bundle can be in; each is a time series, and the present one is 1."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it says and when to alert, its labels, and where it comes from.

    A name that ends in `_total` is a counter, any other a gauge. Times are Unix seconds.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[AgentStatus], Samples]


FAMILIES = (
    Family(
        "certagent_build_info",
        "The version of certagent that runs.",
        ("version",),
        lambda _: [((__version__,), 1)],
    ),
    Family(
        "certagent_bundle_ready",
        "1 when a whole verified set is in the output directory. Alert on 0 for minutes.",
        ("bundle",),
        lambda status: [((bundle.name,), bundle.ready) for bundle in status.bundles],
    ),
    Family(
        "certagent_last_success_timestamp_seconds",
        "When a pass last succeeded. Alert when it is many poll intervals ago: the last good set is"
        " served, and no change gets through.",
        ("bundle",),
        lambda status: [
            ((bundle.name,), bundle.last_success.timestamp())
            for bundle in status.bundles
            if bundle.last_success is not None
        ],
    ),
    Family(
        "certagent_not_after_timestamp_seconds",
        "When the published part expires, the earliest of its certificates. Alert weeks before.",
        ("bundle", "part"),
        lambda status: [
            ((bundle.name, part), moment.timestamp())
            for bundle in status.bundles
            for part, moment in bundle.not_after.items()
        ],
    ),
    Family(
        "certagent_published_total",
        "Sets that were published. Alert on more of them than anybody pushes.",
        ("bundle",),
        lambda status: [((bundle.name,), bundle.published) for bundle in status.bundles],
    ),
    Family(
        "certagent_refused_total",
        "Refusals of a set, by the code of the finding. Alert on any increase: somebody stored a"
        " set that would break the mesh.",
        ("bundle", "code"),
        lambda status: [
            ((bundle.name, code), count)
            for bundle in status.bundles
            for code, count in bundle.refused.items()
        ],
    ),
    Family(
        "certagent_rotation_phase",
        "1 for the phase of a change of roots that the bundle is in, 0 for the others. Alert on"
        " hold and early, and on distribute or switch for longer than their windows.",
        ("bundle", "phase"),
        lambda status: [
            ((bundle.name, phase), phase == bundle.phase)
            for bundle in status.bundles
            for phase in PHASES
        ],
    ),
    Family(
        "certagent_root_set_info",
        "SHA-256 of the published roots. Alert when the replicas of a mesh disagree for longer than"
        " a poll.",
        ("bundle", "fingerprint"),
        lambda status: [
            ((bundle.name, bundle.root_set), 1) for bundle in status.bundles if bundle.root_set
        ],
    ),
    Family(
        "certagent_version_info",
        "The version of the published set in its store. Alert when replicas disagree for longer"
        " than a poll.",
        ("bundle", "version"),
        lambda status: [
            ((bundle.name, bundle.version), 1) for bundle in status.bundles if bundle.version
        ],
    ),
    Family(
        "certagent_history_cut",
        "1 when the store does not tell what the plan needs: a root may be missing. Alert on 1"
        " where the store should keep a history.",
        ("bundle",),
        lambda status: [((bundle.name,), bundle.history_cut) for bundle in status.bundles],
    ),
    Family(
        "certagent_fallback",
        "1 when the fallback is published, because the store could not be reached. Alert on 1.",
        ("bundle",),
        lambda status: [((bundle.name,), bundle.fallback) for bundle in status.bundles],
    ),
    Family(
        "certagent_unconfirmed",
        "1 when the reader did not take the published set in time. Alert on 1.",
        ("bundle",),
        lambda status: [((bundle,), missed) for bundle, missed in status.unconfirmed.items()],
    ),
    Family(
        "certagent_hook_runs_total",
        "Runs of hooks, by outcome: ok, failed, timeout, cancelled. Alert when failed rises.",
        ("bundle", "hook", "outcome"),
        lambda status: [
            ((hook.bundle, hook.name, outcome), count)
            for hook in status.hooks
            for outcome, count in hook.runs.items()
        ],
    ),
    Family(
        "certagent_hook_given_up_total",
        "Events that a hook was not told of, after all attempts. Alert on any increase.",
        ("bundle", "hook"),
        lambda status: [((hook.bundle, hook.name), hook.given_up) for hook in status.hooks],
    ),
    Family(
        "certagent_source_requests_total",
        "Requests to a store, by outcome: ok, denied, missing, unavailable, limited. Alert when"
        " none is ok for minutes.",
        ("source", "outcome"),
        lambda status: status.requests.items(),
    ),
    Family(
        "certagent_logins_total",
        "Logins to a store, by outcome. One serves for most of its lease: alert on more than a few"
        " an hour.",
        ("source", "outcome"),
        lambda status: status.logins.items(),
    ),
)


def exposition(status: AgentStatus) -> bytes:
    """Return `status` in Prometheus's text format, version 0.0.4, in UTF-8."""
    # Only a process that is scraped pays for the client's import.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - see above
    from prometheus_client.registry import Collector  # noqa: PLC0415 - see above

    class Present(Collector):
        def collect(self) -> Iterator[Metric]:
            return (_metric(family, status) for family in FAMILIES)

    registry = CollectorRegistry()
    registry.register(Present())
    return generate_latest(registry)


def _metric(family: Family, status: AgentStatus) -> Metric:
    from prometheus_client import core  # noqa: PLC0415 - as in `exposition`

    counter = family.name.endswith("_total")
    kind = core.CounterMetricFamily if counter else core.GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.samples(status):
        metric.add_metric(labels, value)
    return metric
