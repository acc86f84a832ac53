"""The story that the demo tells, one function a step; a step that does not come true raises."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from certagent.cli.demonstration.children import certagent
from certagent.cli.demonstration.narration import listing
from certagent.cli.demonstration.operator import PATH, Places, Visitor
from certagent.cli.demonstration.sidecar import INTERVAL, WINDOW
from certagent.cli.demonstration.staging import Stage, drawn, is_staged, watch
from certagent.cli.demonstration.tokens import TokenIssuer
from certagent.errors import CertagentError
from certagent.material.kinds import CA
from certagent.material.raw import CA_FILES
from certagent.sources.vault.client import VaultRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from certagent.cli.demonstration.narration import Narrator
    from certagent.cli.demonstration.operator import Operator
    from certagent.cli.demonstration.server import Server
    from certagent.cli.demonstration.sidecar import Sidecar
    from certagent.sinks import Snapshot

CLUSTERS = ("cluster1", "cluster2")
NEW_MESH = "new-mesh-ca"
_PARTS = ("private_key", "certificate", "chain", "roots")
_FORBIDDEN = 403


class Story:
    """A mesh of two clusters, and what happens to it."""

    def __init__(self, narrator: Narrator, server: Server, operator: Operator, home: Path) -> None:
        self._say = narrator
        self._server = server
        self._operator = operator
        self._home = home
        self._mesh = home / "mesh-ca"
        self.places = {name: Places(name, server.prefix) for name in CLUSTERS}
        self._issuers = {name: TokenIssuer(name) for name in CLUSTERS}

    def make_mesh_ca(self) -> None:
        """Make a root, and an intermediate for each cluster."""
        self._say.step("A mesh CA: one root, one intermediate CA for each cluster")
        self._say.tell(
            "istiod signs every workload certificate of its cluster with a CA key. Here every"
            " cluster has an intermediate CA of its own under one root, so their workloads trust"
            " each other. This is what Istio's tools/certs makes, with EC P-256 keys because they"
            " are quick to make; tools/certs, and certagent by default, take RSA 4096. All files"
            f" are made in {self._home}."
        )
        self._command("ca", "root", "--key", "ec256", "--out", "mesh-ca")
        self._intermediates("mesh-ca", *CLUSTERS)

    def set_up_vault(self) -> None:
        """Give each cluster a login mount, a policy and a role, and store its set."""
        self._say.step("In Vault: a login mount, a policy and a role for each cluster")
        self._say.tell(
            "Each cluster signs its service-account tokens with a key of its own. Vault gets the"
            " public key, and its role 'istiod' takes nobody but istio-system/istiod. The policy"
            " allows one thing: to read this cluster's CA."
        )
        for name, places in self.places.items():
            self._operator.set_up(places, self._issuers[name].public_key)
            self._say.show(
                [
                    f"{name}: login at auth/{places.auth}, role istiod, policy {places.policy}:",
                    places.rule,
                ]
            )
        self._say.step("The sets go into Vault")
        self._say.tell("Each is one secret with four fields, the parts that istiod needs together.")
        versions = {
            places: self._operator.store(places, _fields(self._mesh / name))
            for name, places in self.places.items()
        }
        self._say.show(
            f"{places.cluster}: {places.secrets}/{PATH}, version {version}"
            for places, version in versions.items()
        )

    def projected_token(self, cluster: str) -> str:
        """Return what kubelet would put into the pod of this cluster's istiod."""
        return self._issuers[cluster].mint()

    def publish(self, sidecar: Sidecar) -> Snapshot:
        """Show the agent of cluster1, and what it published."""
        self._say.step("The agent of cluster1 starts: `certagent run`, as in istiod's pod")
        self._say.tell(
            f"Its environment is all its configuration (it polls every {INTERVAL}, and gives a new"
            f" root {WINDOW} windows, to keep this short; the defaults are 30s and 25h):"
        )
        self._say.show(f"{name}={value}" for name, value in sidecar.settings.items())
        published = sidecar.wait_for_version(1)
        self._say.tell("It logged in, read the set, verified it as istiod would, and published it:")
        self._say.show(listing(sidecar.directory))
        self._say.tell(
            "The four names lead through `..data`. To change the set is to change that one link,"
            " so a reader finds the old set or the new one, and never a mixture. Would istiod take"
            " it, and would certificates signed with it be good?"
        )
        self._command("check", sidecar.directory.name)
        return published

    def rotate(self, sidecar: Sidecar, before: Snapshot) -> Snapshot:
        """Store a new intermediate for cluster1, and watch the swap."""
        self._say.step("A rotation: cluster1 gets a new intermediate under the same root")
        self._intermediates("mesh-ca/next", "cluster1")
        stored = time.monotonic()
        version = self._operator.store(self.places["cluster1"], _fields(self._next))
        after = sidecar.wait_for_version(version)
        took = time.monotonic() - stored
        changed = [name for name in before.files if before.files[name] != after.files[name]]
        if set(changed) != set(before.files) - {_ROOTS}:
            raise _failure(f"the rotation changed {', '.join(changed) or 'nothing'}")
        self._say.tell(f"It is stored as version {version}. {took:.1f} s later it is published:")
        self._say.show(
            [
                f"before     sha256 {before.record['sha256']}",
                f"after      sha256 {after.record['sha256']}",
                f"changed    {', '.join(sorted(changed))}: in one swap",
                f"unchanged  {_ROOTS}: workloads keep their trust, nobody restarts",
            ]
        )
        self._say.tell("The agent's own line about it:")
        self._say.show([sidecar.wait_for_line("published", f"version={version} ")])
        return after

    def push_badly(self, sidecar: Sidecar, published: Snapshot) -> None:
        """Store a set whose key is another's, and watch it being refused."""
        self._say.step("A bad push: the new certificate with the old key")
        self._say.tell(
            "An easy mistake by hand. istiod would log an error and, at its next restart, not"
            " start at all."
        )
        key = CA.fields["private_key"]
        mixed = _fields(self._next) | {key: _fields(self._mesh / "cluster1")[key]}
        version = self._operator.store(self.places["cluster1"], mixed)
        refusal = sidecar.wait_for_line(f"version {version} refused", "code=key-mismatch")
        now = sidecar.wait_for_version(int(published.record["version"]))
        if now.files != published.files:
            raise _failure("the bad push changed what is published")
        self._say.tell(f"Version {version} is stored, and the agent says why it will not do:")
        self._say.show([refusal])
        self._say.tell(f"Version {published.record['version']} stays published, to the byte.")

    def replace_root(self, sidecar: Sidecar, published: Snapshot) -> None:
        """Store sets under a new root, and watch the agent go over to it by itself."""
        self._say.step("A new root for the whole mesh, and nobody is refused")
        self._say.tell(
            "The rotation that takes meshes down. A workload accepts another if it trusts the"
            " other's root. Were root A replaced by root B in one swap, who has renewed already and"
            " who has not would refuse each other."
        )
        self._command("ca", "root", "--key", "ec256", "--out", NEW_MESH)
        self._intermediates(NEW_MESH, *CLUSTERS, root=NEW_MESH)
        pushed = time.monotonic()
        versions = {
            name: self._operator.store(places, _fields(self._home / NEW_MESH / name))
            for name, places in self.places.items()
        }
        version = versions["cluster1"]
        self._say.tell(
            f"Every cluster gets its set: cluster1 as version {version}, cluster2 as version"
            f" {versions['cluster2']}. Nobody does anything more. What the agent of cluster1"
            " publishes from here on, in seconds after the push, and its own lines about it:"
        )
        stages = [Stage.seen(published, 0)]
        for stage, line in watch(sidecar, int(published.record["version"]), version, pushed):
            self._say.show([str(stage), line])
            stages.append(stage)
        if not is_staged(stages):
            raise _failure("the new root did not come in stages")
        self._explain(stages)

    def _explain(self, stages: Sequence[Stage]) -> None:
        self._say.tell(
            "The same, drawn: who signs, and what root-cert.pem tells workloads to trust:"
        )
        self._say.show(drawn(stages))
        self._say.tell(
            "Why nobody is refused: a workload gets its certificate and its roots together, and"
            " renews both before the certificate expires. In `distribute` everybody comes to trust"
            " B, while A still signs: at the switch there is nobody left who would refuse B. In"
            " `switch` B signs and A stays trusted, until the last certificate under A has expired."
        )
        self._say.tell(
            f"Each window was {WINDOW} here. By default it is 25h: the 24h that Istio's"
            " certificates live, and 1h of slack for clocks and polls."
        )

    def trespass(self) -> None:
        """Try to read cluster2's set as cluster1, and be refused."""
        self._say.step("Who breaks into cluster1 does not get cluster2")
        places, other = self.places["cluster1"], self.places["cluster2"]
        token = self.projected_token("cluster1")
        visitor = Visitor(self._operator, places, token)
        version = visitor.read(places)
        refused = _refusal(lambda: visitor.read(other))
        if refused.status != _FORBIDDEN:
            raise _failure(f"Vault answered {refused.answer} where 403 was due")
        stranger = _refusal(lambda: Visitor(self._operator, other, token))
        self._say.tell("With cluster1's service-account token:")
        self._say.show(
            [
                f"log in at {places.auth}: yes",
                f"read {places.secrets}/{PATH}: yes, version {version}",
                f"read {other.secrets}/{PATH}: {refused.answer}",
                f"log in at {other.auth}: {stranger.answer}",
            ]
        )
        self._say.tell("The 403 is right: the policy of cluster1 reads cluster1's path alone.")

    @property
    def _next(self) -> Path:
        return self._mesh / "next" / "cluster1"

    def _intermediates(self, out: str, *clusters: str, root: str = "mesh-ca") -> None:
        where = ("--root", root, "--out", out)
        self._command("ca", "intermediate", "--key", "ec256", *where, *clusters)

    def _command(self, *words: str) -> None:
        self._say.show(
            [f"$ certagent {' '.join(words)}", *certagent(self._home, *words).splitlines()]
        )


_ROOTS = CA_FILES["roots"]


def _fields(directory: Path) -> dict[str, str]:
    """Return a set that lies in a directory as the fields of a secret."""
    return {CA.fields[part]: (directory / CA_FILES[part]).read_text() for part in _PARTS}


def _refusal(attempt: Callable[[], object]) -> VaultRefused:
    try:
        attempt()
    except VaultRefused as refused:
        return refused
    raise _failure("Vault allowed cluster1 what it must not")


def _failure(what: str) -> CertagentError:
    return CertagentError(
        f"The demo did not go as it should: {what}.",
        hint="Please report it, with what is written above.",
    )
