"""An `az` that somebody is logged in with, or nobody."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.azure.entra import Tenant
    from tests.support.azure.server import AzureCloud
    from tests.support.azure.tokens import Principal

_SCRIPT = """\
#!/bin/sh
case "$*" in
    "account get-access-token --output json --resource {resource}"*) printf %s {answer} ;;
    *) echo "ERROR: Please run 'az login' to setup account." >&2; exit 1 ;;
esac
"""


def install_az(directory: Path, azure: AzureCloud, tenant: Tenant, who: Principal | None) -> str:
    """Write an `az` that gives out one token for the tenant's vaults; return a PATH with it."""
    resource, answer = "nobody is logged in", ""
    if who is not None:
        resource = tenant.cloud.resource
        token = azure.issued.issue(who, resource)
        told = {"accessToken": token.value, "expires_on": int(token.expires_at)}
        answer = json.dumps({**told, "tenant": tenant.id, "tokenType": "Bearer"})
    script = directory / "az"
    script.write_text(_SCRIPT.format(resource=resource, answer=shlex.quote(answer)))
    script.chmod(0o755)
    return f"{directory}:/usr/bin:/bin"
