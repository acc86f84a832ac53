"""Events as hooks are told them: a new intermediate, and then another set of roots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from certagent.runtime.hooks import Event

EVENT = Event(
    name="published",
    bundle="istiod-ca",
    version="5",
    changed=("private_key", "certificate", "chain"),
    subject="O=Istio,CN=Intermediate CA,L=cluster1",
    serial="0A",
    sha256="ab" * 32,
    root_set="cd" * 32,
    not_after=datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC),
    phase="switch",
    directory="/etc/istio-ca",
    sha256_before="01" * 32,
    root_set_before="cd" * 32,
)
ROOTS = replace(EVENT, version="6", changed=("roots",))
UNCONFIRMED = replace(EVENT, name="unconfirmed")
