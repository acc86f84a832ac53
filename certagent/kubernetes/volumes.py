"""The volumes of the agent: what it publishes to, and what it reads of tokens and files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from certagent.config.model import SERVICE_ACCOUNT_TOKEN, FilesSource
from certagent.kubernetes.istio import ISTIOD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certagent.config.model import Config
    from certagent.kubernetes.istio import Reader
    from certagent.kubernetes.options import Options

CONFIG_DIRECTORY = "/etc/certagent-config"
CONFIG_FILE = "certagent.yaml"
VAULT_TOKEN_FILE = "/var/run/secrets/vault/vault"  # noqa: S105 - a path
AZURE_TOKEN_FILE = "/var/run/secrets/azure/tokens/token"  # noqa: S105 - a path

_TOKEN_SECONDS = 3600
_AZURE_AUDIENCE = "api://AzureADTokenExchange"
_CACERTS = "/etc/cacerts"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume, where it is mounted, and what it is made of; `key` is what asks for it."""

    name: str
    path: str
    source: dict[str, Any]
    key: str
    published: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """The entry in the pod's `volumes`."""
        return {"name": self.name, **self.source}

    def mount(self, *, read_only: bool) -> dict[str, Any]:
        """Return the entry in a container's `volumeMounts`."""
        mount: dict[str, Any] = {"name": self.name, "mountPath": self.path}
        return {**mount, "readOnly": True} if read_only else mount


@dataclass(frozen=True, slots=True)
class _File:
    """A file, or a whole directory, that the configuration reads; `method` is the login's."""

    key: str
    directory: str
    name: str
    method: str
    is_source: bool


def volumes(config: Config, reader: Reader, options: Options) -> list[Volume]:
    """Return what the agent mounts, as it is needed: outputs, configuration, tokens, Secrets."""
    found = list(_outputs(config, reader))
    if options.config_map:
        source = {"configMap": {"name": options.config_map}}
        found.append(Volume("certagent-config", CONFIG_DIRECTORY, source, "--config"))
    files = list(_files(config))
    found += _tokens(files, options)
    return [*found, *_secrets(files, reader, options)]


def unknown_files(config: Config, reader: Reader, options: Options) -> list[str]:
    """Return what the configuration reads and no Secret is named for, each with its key."""
    known = _known(reader, options)
    return [
        f"{file.key}: name the Secret that is to be mounted there: --secret {file.directory}=NAME"
        for file in _files(config)
        if not _is_projected(file) and file.directory not in known
    ]


def token_file(config: Config, options: Options) -> str:
    """Return where the token for Vault is, if it is elsewhere than the configuration says."""
    own = any(_is_own_token(file) for file in _files(config))
    return VAULT_TOKEN_FILE if own and options.audience else ""


def _outputs(config: Config, reader: Reader) -> Iterator[Volume]:
    """Yield what is published to, istiod's CA first.

    Directories of a gateway share a volume where they lie together. istiod's must be mounts: it
    watches the directory's own inode.
    """
    bundles = sorted(enumerate(config.bundles), key=lambda each: each[1].kind != "ca")
    directories = [os.path.normpath(bundle.output.directory) for _, bundle in bundles]
    keys = [f"bundles[{index}].output.directory" for index, _ in bundles]
    if reader is not ISTIOD and len(directories) > 1:
        common = os.path.commonpath(directories) if all(map(os.path.isabs, directories)) else "/"
        if len(PurePosixPath(common).parts) > 2:  # noqa: PLR2004 - more than /etc or /var
            directories, keys = [common], ["bundles[].output.directory"]
    source = {"emptyDir": {"medium": "Memory", "sizeLimit": reader.size}}
    for index, (directory, key) in enumerate(zip(directories, keys, strict=True)):
        yield Volume(_numbered(reader.volume, index), directory, source, key, published=True)


def _tokens(files: list[_File], options: Options) -> Iterator[Volume]:
    """Tokens of the pod's service account, each for one audience, which kubelet keeps fresh."""
    for file in files:
        if not _is_projected(file) or (_is_own_token(file) and not options.audience):
            continue
        azure = file.method == "workloadIdentity"
        path = VAULT_TOKEN_FILE if _is_own_token(file) else f"{file.directory}/{file.name}"
        audience = _AZURE_AUDIENCE if azure else options.audience
        token = {
            "path": os.path.basename(path),  # noqa: PTH119 - a path in the pod, not here
            **({"audience": audience} if audience else {}),
            "expirationSeconds": _TOKEN_SECONDS,
        }
        yield Volume(
            "azure-token" if azure else "vault-token",
            os.path.dirname(path),  # noqa: PTH120 - likewise
            {"projected": {"sources": [{"serviceAccountToken": token}]}},
            file.key,
        )


def _secrets(files: list[_File], reader: Reader, options: Options) -> Iterator[Volume]:
    known = _known(reader, options)
    wanted = {file.directory: file for file in reversed(files) if not _is_projected(file)}
    for index, directory in enumerate(sorted(wanted.keys() & known.keys())):
        file = wanted[directory]
        secret: dict[str, Any] = {"secretName": known[directory]}
        if file.is_source:
            # The agent tells what is missing; a pod that waits for a Secret tells less.
            secret["optional"] = True
        yield Volume(_numbered("certagent-files", index), directory, {"secret": secret}, file.key)


def _known(reader: Reader, options: Options) -> dict[str, str]:
    istios = {_CACERTS: "cacerts"} if reader is ISTIOD else {}
    given = {os.path.normpath(path): name for path, name in options.secrets.items()}
    return istios | given


def _files(value: object, at: str = "") -> Iterator[_File]:
    """Yield every file and directory that a configuration reads, wherever it names one."""
    if isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from _files(each, f"{at}[{index}]")
    elif isinstance(value, FilesSource):
        directory = os.path.normpath(value.directory)
        yield _File(f"{at}.directory", directory, "", "", is_source=True)
    elif isinstance(value, msgspec.Struct):
        tag = str(value.__struct_config__.tag or "")
        for field in msgspec.structs.fields(value):
            inner = getattr(value, field.name)
            key = f"{at}.{field.encode_name}".lstrip(".")
            if not isinstance(inner, str):
                yield from _files(inner, key)
            elif field.name.endswith("_file") and inner:
                directory, _, name = os.path.normpath(inner).rpartition("/")
                yield _File(key, directory, name, tag, is_source=False)


def _is_projected(file: _File) -> bool:
    """Whether kubelet makes it: the service account's token, which these logins send."""
    logins = {"kubernetes", "jwt", "workloadIdentity"}
    return file.method in logins and file.key.endswith("tokenFile")


def _is_own_token(file: _File) -> bool:
    return _is_projected(file) and f"{file.directory}/{file.name}" == SERVICE_ACCOUNT_TOKEN


def _numbered(name: str, index: int) -> str:
    return f"{name}-{index + 1}" if index else name
