"""What a migration changes, for whoever must say yes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certagent.cli.migration.delivery import MULTIROOT, stays
from certagent.config.model import KubernetesAuth, seconds
from certagent.kubernetes.istio import ISTIOD, NATIVE_SIDECARS
from certagent.kubernetes.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.cli.migration.translation import Migration

_GRACE = 30.0
"""Kubernetes' terminationGracePeriodSeconds, unless a pod says otherwise."""


_WITHOUT = {
    "istiod": "istiod would make a root of its own",
    "gateway": "the gateway would have no certificate",
}
"""What becomes of a pod that has no agent, and no injector any more."""

_DEFAULTS = Options()


def report(
    migration: Migration, options: Options = _DEFAULTS, *, is_patch: bool | None = None
) -> str:
    """Return the fate of each annotation, what changes, and what is left to do.

    `options` and `is_patch` are as of the overlay that is printed: by default, what fits the place.
    """
    place = migration.place
    is_patch = place.is_pod if is_patch is None else is_patch
    staying = stays(migration, options, is_patch=is_patch)
    lines = [f"{place.name}: {len(migration.annotations.all)} annotations"]
    lines += [f"  {line}" for line in _fates(migration)]
    lines += [
        "",
        "What changes:",
        *(f"  - {line}" for line in _changes(migration, staying=staying)),
    ]
    steps = _steps(migration, staying=staying, is_patch=is_patch)
    lines += ["", "What to do:", *(f"  - {line}" for line in steps)]
    return "\n".join(lines) + "\n"


def _fates(migration: Migration) -> Iterator[str]:
    """Yield one line for each row of the table that was used."""
    rows = {each.notation: each for each in migration.annotations.all}
    counts = [each.notation for each in migration.annotations.all]
    width = max(map(len, rows)) + 6
    for notation, annotation in rows.items():
        times = f" ({counts.count(notation)})" if counts.count(notation) > 1 else ""
        yield f"{notation + times:<{width}}{annotation.fate.value:<12}{annotation.reason}"


def _changes(migration: Migration, *, staying: bool) -> Iterator[str]:
    given = migration.annotations
    if not given.is_true("agent-inject"):
        yield "agent-inject is not true: the injector has left this pod alone until now"
    if migration.place.twice:
        yield (
            f"{', '.join(migration.place.twice)}: both at the top level and under pilot; the top"
            " level is followed, because istiod's chart reads no other"
        )
    reader = migration.reader.container
    yield "no webhook is needed at the pod's start: if Vault cannot be reached, the pod says so"
    yield f"the set is verified, and changes by one rename; {reader} mounts it read-only"
    yield "the key's file has mode 0600, for its reader's user alone"
    named = {each.strip() for each in given["agent-inject-containers"].split(",")}
    if others := named - {reader, ""}:
        yield f"{', '.join(sorted(others))} had the files too (agent-inject-containers): no longer"
    if migration.is_once:
        yield "as before, nothing is fetched after the start: that is agent-pre-populate-only"
    elif not staying:
        yield (
            "nothing is fetched after the start: without native sidecars (Kubernetes"
            f" {NATIVE_SIDECARS}) istiod's chart takes no container that stays; --kustomize prints"
            " a patch with one"
        )
    else:
        interval = migration.config.refresh.interval
        yield f"a new version is published within {interval}, from KV v1 too"
    if any(each.kv_version == 1 for each in migration.bundles):
        yield "KV v1 keeps no history: stage a change of roots by hand, or move the secret to KV v2"
    yield from _login_changes(migration)
    if migration.reader is ISTIOD and not migration.place.variable(MULTIROOT):
        yield f"{MULTIROOT} is true: istiod takes new roots while it runs"
    for bundle in migration.bundles:
        if not bundle.kind.is_ca:
            old, new = f"{bundle.directory}/tls.crt", f"{bundle.directory}/current/tls.crt"
            yield f"{old} is {new} now, and tls.key and ca.crt are beside it"
            yield "it is verified as a server's certificate; for a client's set usage in the file"


def _login_changes(migration: Migration) -> Iterator[str]:
    vault = migration.config.vault
    assert vault  # noqa: S101 - what is migrated logs in to Vault
    if isinstance(vault.auth, KubernetesAuth) and not migration.audience:
        yield (
            "it logs in with the pod's own token, as vault-agent does; tighter is a token for Vault"
            " alone: a role with audience=vault, and --audience vault here"
        )
    if seconds(vault.request_timeout) >= _GRACE:
        yield (
            f"a request may last {vault.request_timeout}, as client-timeout says, and so may the"
            f" pod's end: keep it below {_GRACE:.0f} s"
        )


def _steps(migration: Migration, *, staying: bool, is_patch: bool) -> Iterator[str]:
    place = migration.place
    if not migration.environ:
        yield "apply the ConfigMap: the same command with --config-map prints it"
    if migration.audience:
        yield (
            f"make a role of its own that asks for audience {migration.audience}: vault-agent's"
            " token has another, and its role must stay until the last of its pods is gone"
        )
    if is_patch:
        yield "apply the patch; it switches the injector off for this pod (agent-inject: false)"
        if not place.is_pod or place.target["kind"] == "Pod":
            yield "the Deployment's name and namespace are not in the file: see --name, --namespace"
    else:
        if place.is_moved:
            yield (
                "the overlay is at the top level, where istiod's chart reads it"
                f" ({migration.reader.init_containers} and newer): under pilot is the"
                " IstioOperator's form, and the chart leaves it out without a word"
            )
        if place.unread:
            yield f"move to the top level what else is under pilot: {', '.join(place.unread)}"
        yield (
            "see first that `helm template`, with the same files, has a container certagent:"
            f" charts before {migration.reader.init_containers} leave initContainers out without a"
            f" word, and {_WITHOUT[migration.reader.chart]}"
        )
        yield (
            "give the overlay to helm after the values that have the annotations; it switches the"
            " injector off (agent-inject: false)"
        )
        yield (
            "Helm replaces lists: volumes, volumeMounts and initContainers of other values files"
            " belong into the overlay too"
        )
    for directory in (each.directory for each in migration.bundles if not each.kind.is_ca):
        yield f"point the Gateway's serverCertificate and privateKey to {directory}/current"
    directory = migration.bundles[0].directory
    if migration.reader is ISTIOD and not place.variable("ROOT_CA_DIR"):
        yield f"ROOT_CA_DIR was not in the file; the overlay sets it to {directory}"
    if staying:
        yield f"see it work: kubectl exec … -c certagent -- certagent status {directory}"
    else:
        yield "see it work: the log of certagent's init container says `published`"
    yield "then take the vault.hashicorp.com annotations out"
