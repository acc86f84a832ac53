"""How vault-agent was told to reach Vault and to log in, as certagent's `vault` has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certagent.cli.migration.annotations import Annotations

TLS_DIRECTORY = "/vault/tls"
EXTRA_DIRECTORY = "/vault/custom"
"""Where the injector mounts the Secrets of tls-secret and agent-extra-secret."""

_LOGINS: Mapping[str, Mapping[str, str]] = {
    "kubernetes": {"role": "role", "token_path": "tokenFile"},
    "jwt": {"role": "role", "path": "tokenFile", "remove_jwt_after_reading": ""},
    "approle": {
        "role_id_file_path": "roleIdFile",
        "secret_id_file_path": "secretIdFile",
        "secret_id_response_wrapping_path": "",
        "remove_secret_id_file_after_reading": "",
    },
    "cert": {"name": "role", "client_cert": "certFile", "client_key": "keyFile", "reload": ""},
}
"""What an agent's login takes in auth-config-KEY, and what certagent calls it.

Nothing, where certagent needs no word: it never removes what it has read, reads it afresh at every
login, and unwraps a secret id with the token that the file holds.
"""

_NEEDED: Mapping[str, Mapping[str, str]] = {
    "kubernetes": {"role": "role"},
    "jwt": {"role": "role"},
    "approle": {
        "roleIdFile": "auth-config-role-id-file-path",
        "secretIdFile": "auth-config-secret-id-file-path",
    },
    "cert": {"certFile": "client-cert", "keyFile": "client-key"},
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator adds on the command line, because the annotations do not have it.

    `address` is Vault's, which the injector may know by itself; it wins. `plain_http`: http:// to
    another machine is meant. `audience` asks for a token of certagent's own; without, it logs in
    with the pod's, as vault-agent does. `mount` is the secrets engine's, where no path tells.
    """

    address: str = ""
    plain_http: bool = False
    audience: str = ""
    mount: str = ""


def vault_section(given: Annotations, wishes: Wishes, faults: list[str]) -> dict[str, Any]:
    """Return the configuration's `vault`; add to `faults` what is missing or has no counterpart."""
    address = wishes.address or given["service"]
    if not address:
        faults.append(
            "service: not given, the injector knew Vault's address by itself; give --vault-address"
            " (the injector's AGENT_INJECT_VAULT_ADDR)"
        )
    optional = {
        "namespace": given["namespace"],
        "caFile": given["ca-cert"],
        "plainHttp": wishes.plain_http,
        "requestTimeout": duration(given, "client-timeout", faults),
    }
    return {
        "address": address,
        "auth": _auth(given, faults),
        **{key: value for key, value in optional.items() if value},
    }


def duration(given: Annotations, name: str, faults: list[str]) -> str:
    """Return a length of time, which Go and Vault write as 90, 30s, 1m30s; empty if not given."""
    if not (value := given[name]):
        return ""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+|\d+", value):
        faults.append(f"{name}: expected a duration such as 30s or 5m, got {value[:40]!r}")
        return ""
    if value.isdigit():
        return f"{value}s"
    found = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value)
    if len(found) == 1:
        return value
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return f"{sum(float(number) * units[unit] for number, unit in found):g}s"


def _auth(given: Annotations, faults: list[str]) -> dict[str, Any]:
    method = given["auth-type"] or "kubernetes"
    if method not in _LOGINS:
        faults.append(f"auth-type: {method!r} is no login of certagent's: {', '.join(_LOGINS)}")
        return {"method": method}
    known = _LOGINS[method]
    parameters = {key.replace("-", "_"): value for key, value in given.of("auth-config").items()}
    faults += [
        f"auth-config-{key.replace('_', '-')}: the login {method} of certagent has nothing like it"
        for key in sorted(parameters.keys() - known.keys())
    ]
    login: dict[str, Any] = {
        known[key]: value for key, value in parameters.items() if known.get(key)
    }
    if method == "cert":
        for key, name in (("certFile", "client-cert"), ("keyFile", "client-key")):
            _unite(login, key, given, name, faults)
    else:
        faults += [
            f"{name}: a client certificate is shown with auth-type cert alone"
            for name in ("client-cert", "client-key")
            if given[name]
        ]
    if "role" in known.values():
        _unite(login, "role", given, "role", faults)
    if "secret_id_response_wrapping_path" in parameters:
        login["secretIdWrapped"] = True
    faults += [
        f"{given_as}: missing, the login {method} needs it"
        for key, given_as in _NEEDED[method].items()
        if not login.get(key)
    ]
    mount = given["auth-path"].strip("/").removeprefix("auth/")
    return {"method": method, **({"mount": mount} if mount else {}), **login}


def _unite(
    login: dict[str, Any], key: str, given: Annotations, name: str, faults: list[str]
) -> None:
    """Take a value that may be given by two annotations, which must not differ."""
    if not given[name]:
        return
    if login.setdefault(key, given[name]) != given[name]:
        faults.append(f"{name}: {given[name]!r}, where auth-config has {login[key]!r}")
