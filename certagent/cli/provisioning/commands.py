"""The same as commands of Vault's own CLI, for people and for review."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from certagent.cli.provisioning.steps import Mount, Places, ReviewTrust, method

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.provisioning.steps import Access, Setting, Step, Trust

_POLICIES = "sys/policies/acl/"


def command(step: Step) -> str:
    """Return the command that makes one thing."""
    if isinstance(step, Mount):
        engine = "secrets" if step.registry == "sys/mounts" else "auth"
        options = "".join(f" -{key}={value}" for key, value in step.options.items())
        return f"vault {engine} enable -path={step.name}{options} {step.kind}"
    if step.path.startswith(_POLICIES):
        name = step.path.removeprefix(_POLICIES)
        return _heredoc(f"vault policy write {name} -", step.data["policy"])
    return _write(step)


def after(cluster: str, trust: Trust, access: Access) -> Iterator[str]:
    """Yield what is left to do outside of Vault, and how the agent is told."""
    if isinstance(trust, ReviewTrust):
        account = f"{access.namespace}:{access.service_account}"
        yield f"# In {cluster}, so that the login may ask for its own review:"
        yield (
            f"# kubectl create clusterrolebinding {access.role}-tokenreview"
            f" --clusterrole=system:auth-delegator --serviceaccount={account}"
        )
    places = Places(cluster)
    told = {
        "CERTAGENT_SOURCE": f"vault:{places.secrets}/{access.path}",
        "CERTAGENT_VAULT_AUTH_METHOD": method(trust),
        "CERTAGENT_VAULT_AUTH_MOUNT": places.auth,
        "CERTAGENT_VAULT_ROLE": access.role,
    }
    yield "# The agent:"
    yield from (f"#   {name}={value}" for name, value in told.items())
    if trust.audience:
        yield f"#   and a service-account token with the audience {trust.audience}"
    else:
        yield "#   and the pod's own service-account token (`certagent overlay --audience ''`)"


def _write(step: Setting) -> str:
    pairs = [f"{key}={_text(value)}" for key, value in step.data.items()]
    if any("\n" in pair for pair in pairs):
        return _heredoc(f"vault write {step.path} -", json.dumps(step.data, indent=2))
    return " \\\n  ".join([f"vault write {step.path}", *map(shlex.quote, pairs)])


def _text(value: Any) -> str:
    """Return a value as the CLI takes it."""
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _heredoc(line: str, text: str) -> str:
    return f"{line} <<'EOF'\n{text.rstrip()}\nEOF"


def document(step: Step) -> Mapping[str, Any]:
    """Return the request that makes one thing, for programs."""
    path = f"{step.registry}/{step.name}" if isinstance(step, Mount) else step.path
    return {"method": "POST", "path": path, "data": dict(step.data)}
