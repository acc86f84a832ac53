"""From annotations to the configuration that does the same, or to all reasons why there is none."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certagent.cli.migration.annotations import Annotations, not_convertible
from certagent.cli.migration.injected import injected_bundles, injected_files
from certagent.cli.migration.login import (
    EXTRA_DIRECTORY,
    TLS_DIRECTORY,
    duration,
    vault_section,
)
from certagent.cli.migration.resources import resources
from certagent.config.decoding import decode
from certagent.config.model import SERVICE_ACCOUNT_TOKEN
from certagent.config.settings import BUNDLE, SETTINGS
from certagent.errors import ConfigurationError
from certagent.kubernetes.istio import GATEWAY, ISTIOD
from certagent.kubernetes.volumes import VAULT_TOKEN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from certagent.cli.migration.injected import InjectedBundle
    from certagent.cli.migration.login import Wishes
    from certagent.cli.migration.reading import Place
    from certagent.config.model import Config
    from certagent.kubernetes.istio import Reader

_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "notice": "info",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "err": "error",
    "error": "error",
}
_FORMATS = {"standard": "text", "json": "json"}


@dataclass(frozen=True, slots=True)
class Migration:
    """What annotations become.

    `document` is the configuration as a file has it, `config` the same, decoded; `environ` is it as
    variables, or empty where variables cannot say it. `audience` is that of certagent's own token
    ("" for the pod's), `secrets` the Secret of each directory of files. `is_once`: nothing stays
    after the start. `is_first`: it comes before other init containers.
    """

    place: Place
    annotations: Annotations
    bundles: tuple[InjectedBundle, ...]
    document: Mapping[str, Any]
    config: Config
    environ: Mapping[str, str]
    audience: str
    secrets: Mapping[str, str]
    resources: Mapping[str, Mapping[str, str]]
    proxy: str
    is_once: bool
    is_first: bool

    @property
    def reader(self) -> Reader:
        """Whose pod it is."""
        return ISTIOD if self.bundles[0].kind.is_ca else GATEWAY


def migrate(place: Place, wishes: Wishes) -> Migration:
    """Translate all annotations of a place; raises `ConfigurationError` with every bar to it."""
    given = Annotations(place.annotations)
    faults: list[str] = []
    files = injected_files(given, faults)
    # A file that is not understood is no file that is missing.
    bundles = [] if faults else injected_bundles(files, wishes.mount, faults)
    if not files and not faults:
        faults.append("agent-inject-secret-NAME: there is none, so there is nothing to publish")
    vault = vault_section(given, wishes, faults)
    audience = _audience(given, wishes, place, vault["auth"], faults)
    if audience:
        vault["auth"].setdefault("tokenFile", VAULT_TOKEN_FILE)
    document = {
        "vault": vault,
        "bundles": [each.configuration() for each in bundles],
        **_runtime(given, faults),
    }
    faults += _kind_faults(bundles, place)
    is_once = given.is_true("agent-pre-populate-only")
    if is_once and not given.is_true("agent-pre-populate", default=True):
        faults.append("agent-pre-populate-only: true, where agent-pre-populate is false: no agent")
    added = resources(given, faults)
    config = _decoded(document, faults)
    if faults or not config:
        raise not_convertible(faults)
    return Migration(
        place=place,
        annotations=given,
        bundles=tuple(bundles),
        document=document,
        config=config,
        environ=environment(document),
        audience=audience,
        secrets=_secrets(given),
        resources=added,
        proxy=given["proxy-address"],
        is_once=is_once,
        is_first=given.is_true("agent-init-first"),
    )


def _audience(
    given: Annotations, wishes: Wishes, place: Place, auth: Mapping[str, Any], faults: list[str]
) -> str:
    """Return the audience of a token that is made for Vault; none, if the pod's own is sent."""
    if auth["method"] not in {"kubernetes", "jwt"}:
        return ""
    name = given["agent-service-account-token-volume-name"]
    volumes = [each for each in place.entries("volumes") if each.get("name") == name]
    told = {_token_audience(each) for each in volumes}
    if wishes.audience:
        return wishes.audience
    if name and not told:
        faults.append(
            f"agent-service-account-token-volume-name: the file has no volume {name!r}, so the"
            " token's audience is not known; give --audience"
        )
    elif not name and auth.get("tokenFile", SERVICE_ACCOUNT_TOKEN) != SERVICE_ACCOUNT_TOKEN:
        faults.append(
            f"auth-config: the audience of the token in {auth['tokenFile']} is not known; give"
            " --audience"
        )
    return "".join(told)


def _token_audience(volume: Mapping[str, Any]) -> str:
    """Return the audience of a projected token; "" for the API server's, or where there is none."""
    projected = volume.get("projected")
    sources = projected.get("sources") if isinstance(projected, dict) else None
    for source in sources if isinstance(sources, list) else []:
        token = source.get("serviceAccountToken") if isinstance(source, dict) else None
        if isinstance(token, dict):
            return str(token.get("audience") or "")
    return ""


def _runtime(given: Annotations, faults: list[str]) -> dict[str, Any]:
    """Return the sections that say how often, and what the log looks like."""
    log = {}
    for key, name, values in (("level", "log-level", _LEVELS), ("format", "log-format", _FORMATS)):
        value = given[name].lower()
        if value and value not in values:
            faults.append(f"{name}: expected one of {', '.join(values)}, got {value[:40]!r}")
        elif value:
            log[key] = values[value]
    interval = duration(given, "template-static-secret-render-interval", faults)
    return {
        **({"refresh": {"interval": interval}} if interval else {}),
        **({"log": log} if log else {}),
    }


def _kind_faults(bundles: list[InjectedBundle], place: Place) -> Iterator[str]:
    """Yield why these bundles are not those of one pod of Istio's."""
    cas = [each.directory for each in bundles if each.kind.is_ca]
    if cas and len(bundles) > len(cas):
        yield "a pod has the CA of istiod or a gateway's certificates, and these are both"
    wanted = place.variable("ROOT_CA_DIR")
    if cas and wanted and posixpath.normpath(wanted) != cas[0]:
        yield (
            f"secret-volume-path: the files go to {cas[0]}, where istiod reads {wanted}"
            " (ROOT_CA_DIR): it has made a root of its own so far"
        )


def _secrets(given: Annotations) -> dict[str, str]:
    mounted = {TLS_DIRECTORY: given["tls-secret"], EXTRA_DIRECTORY: given["agent-extra-secret"]}
    return {directory: name for directory, name in mounted.items() if name}


def _decoded(document: Mapping[str, Any], faults: list[str]) -> Config | None:
    """Return the configuration, if nothing was wrong before; add to `faults` what is wrong with it.

    Files are not looked for: they are in the pod, and not here.
    """
    if faults:
        return None
    try:
        return decode(dict(document), {}, here=False)
    except ConfigurationError as error:
        faults += error.faults
        return None


def environment(document: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as variables, or nothing where they cannot say all of it."""
    variables = {setting.path: setting.variable for setting in SETTINGS}
    bundle, *more = document["bundles"]
    kv = bundle["source"]["vaultKV"]
    if more or bundle["kind"] != "ca" or "fields" in kv or "/" in kv["mount"]:
        return {}
    found = {
        variables[BUNDLE, "source"]: f"vault:{kv['mount']}/{kv['path']}",
        variables[BUNDLE, "output", "directory"]: bundle["output"]["directory"],
    }
    rest = {key: value for key, value in document.items() if key != "bundles"}
    for path, value in _leaves(rest):
        if path not in variables:
            return {}
        if (path[-1], value) != ("method", "kubernetes"):  # the default
            found[variables[path]] = "true" if value is True else str(value)
    return found


def _leaves(
    value: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, (*path, key))
        else:
            yield (*path, key), inner
