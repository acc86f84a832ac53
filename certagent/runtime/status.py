"""What the agent tells about itself.

The loop replaces one frozen `AgentStatus` by the next; probes and metrics only read it. So nothing
is locked, and what a scrape sees is always one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from certagent.runtime.hooks import HookStatus


class BundleStatus(Struct, frozen=True):
    """One bundle: what is published, since when, and what was refused.

    `ready`: a whole set that verified is in the output directory. `not_after` is by part:
    `certificate`, `chain`, `roots` (the earliest of each). `root_set` is the SHA-256 (hex) of the
    published roots. `fallback`: what is published is not the store's. `history_cut`: what the store
    held before cannot be known, and the plan may lack a root.
    """

    name: str
    required: bool = True
    ready: bool = False
    phase: str = "hold"
    version: str = ""
    root_set: str = ""
    not_after: Mapping[str, datetime] = field(default_factory=dict)
    last_success: datetime | None = None
    published: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    fallback: bool = False
    history_cut: bool = False


class AgentStatus(Struct, frozen=True):
    """All bundles of one process, and its dealings with their stores.

    `turned_at` is the monotonic time (seconds) of the loop's last turn, `turn_due_within` how long
    the next one may take, in seconds. `requests` and `logins` are by store and outcome.
    `unconfirmed` is by bundle, of those whose reader is asked: it did not take the last set.
    """

    bundles: tuple[BundleStatus, ...]
    turned_at: float
    turn_due_within: float
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    logins: Mapping[tuple[str, str], int] = field(default_factory=dict)
    hooks: tuple[HookStatus, ...] = ()
    unconfirmed: Mapping[str, bool] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether every required bundle stands published."""
        return all(bundle.ready for bundle in self.bundles if bundle.required)
