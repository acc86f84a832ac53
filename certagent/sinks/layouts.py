"""How a published directory is laid out: the names in it, what they lead to, and whose they are."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from certagent.layouts import CURRENT, DATA, NUMBERED, target
from certagent.sinks.held import opened
from certagent.sinks.version import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_STAMP = re.compile(r"\.\.[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{8}")


class Layout(Protocol):
    """What a reader and its watch expect of a directory."""

    @property
    def link(self) -> str:
        """The link at the top that leads to the present version, and that one rename swaps."""
        ...

    @property
    def reserved(self) -> Mapping[str, str]:
        """The names that must not stand at the top, each with what it would do there."""
        ...

    @property
    def keeps_previous(self) -> bool:
        """Whether the version before stays until `tidy`, or goes with the swap."""
        ...

    def claims(self, name: str) -> bool:
        """Say whether a version of ours could have this name."""
        ...

    def owns(self, name: str, top: int) -> bool:
        """Say whether an entry whose name is claimed was made by certagent; raises `OSError`."""
        ...

    def next_version(self, moment: datetime, top: int) -> str:
        """Return a name that no version had before; raises `OSError`."""
        ...

    def links(self, files: Iterable[str]) -> dict[str, str]:
        """Return the names at the top by which these files are read, each with where it leads."""
        ...


class KubeletLayout(Struct, frozen=True):
    """The layout of kubelet's AtomicWriter: for istiod, and for who reads as from a Secret.

        ..20260822T101500.123456-9f3a61c2/   the files, and the agent's record of them
        ..data -> ..20260822T101500.123456-9f3a61c2
        ca-key.pem -> ..data/ca-key.pem      and so on; nothing else of ours stands at the top

    The version before stays for readers that have resolved `..data` already. For gateways it is the
    wrong one: pilot-agent 1.29.0 to 1.29.2 and 1.30.0 to 1.30.2 see the first rotation alone.
    """

    reserved: Mapping[str, str]
    link = DATA
    keeps_previous = True

    def claims(self, name: str) -> bool:
        """Say whether a version of ours could have this name."""
        return _STAMP.fullmatch(name) is not None

    def owns(self, name: str, top: int) -> bool:  # noqa: ARG002 - nobody else stamps like that
        """Say whether an entry was made by certagent: the name says it all."""
        return self.claims(name)

    def next_version(self, moment: datetime, top: int) -> str:  # noqa: ARG002 - it is random
        """Return a name that was never used: the time is for the eye, the rest for uniqueness."""
        return f"..{moment:%Y%m%dT%H%M%S.%f}-{os.urandom(4).hex()}"

    def links(self, files: Iterable[str]) -> dict[str, str]:
        """Return the names at the top by which these files are read, each with where it leads."""
        return {name: f"{DATA}/{name}" for name in files}


class GatewayLayout(Struct, frozen=True):
    """The layout whose rotations every version of a gateway sees.

        current -> v7
        v7/tls.crt, v7/tls.key, v7/ca.crt    and the agent's record of them

    A Gateway names `<dir>/current/tls.crt`. How its readers are told (security/pkg/nodeagent/cache,
    secretcache.go; measured with their own code, also below a symlinked parent):

    - pilot-agent up to 1.28 watches the file that the path led to, and learns of a rotation when
      that is deleted. So the version before goes with the swap.
    - From 1.29 on it watches the directory of the symlink, and sees the swap itself.
    - An Envoy of its own with `watched_directory: <dir>` reads again at the one rename there.

    Each opens certificate and key by their paths, so a swap in between gives it a torn pair, or one
    file that is gone: pilot-agent tries again for 10 s, the first time after 100 ms; Envoy keeps
    what it serves, and the swap that tore the pair has it read once more.

    The numbers grow, also over restarts: a name that came back would let a watch take a new file
    for the old one. `v7` is a name that others use too: it is ours where our record is inside, or
    nothing yet.
    """

    reserved: Mapping[str, str]
    link = CURRENT
    keeps_previous = False

    def claims(self, name: str) -> bool:
        """Say whether a version of ours could have this name."""
        return NUMBERED.fullmatch(name) is not None

    def owns(self, name: str, top: int) -> bool:
        """Say whether an entry was made by certagent: a directory with its record, or empty.

        The record is the first file to come and the last to go; before it there is only the link
        that is to be swapped. One that has just gone was removed by the agent that holds the
        directory. Raises `OSError`.
        """
        try:
            with opened(name, top) as version:
                found = set(os.listdir(version))  # noqa: PTH208 - a descriptor, not a path
                is_begun = found <= {self.link} and target(self.link, version) in (None, name)
                return RECORD in found or is_begun
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return False

    def next_version(self, moment: datetime, top: int) -> str:  # noqa: ARG002 - it is counted
        """Return the name after the highest of all, the one that `current` leads to included."""
        names = [*os.listdir(top), target(self.link, top) or ""]
        return f"v{1 + max((int(name[1:]) for name in names if self.claims(name)), default=0)}"

    def links(self, files: Iterable[str]) -> dict[str, str]:  # noqa: ARG002 - whatever they are
        """Return nothing: no file has a name at the top."""
        return {}


ISTIOD = KubeletLayout(
    {
        # pilot/pkg/bootstrap/istio_ca.go: detectSigningCABundleAndCRL, createIstioCA
        "tls.crt": "With it istiod reads the kubernetes.io/tls layout and none of certagent's"
        " files.",
        "istio-generated": "With it istiod may take the set for its own self-signed one.",
    }
)
KUBELET = KubeletLayout({})
GATEWAY = GatewayLayout({DATA: "Readers would take what lies there, and not the set in `current`."})
