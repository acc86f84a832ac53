"""What an operator can ask for, as frozen structs: the YAML keys are these names in camelCase.

One definition serves the decoder, the JSON schema and the docs. Each default is what most meshes
want; each docstring or comment says the unit and why.
"""

# Annotations are no text here, or msgspec would evaluate each of them at every start.
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import asdict

# In a pattern it is \Z, because Python's `$` stands before a newline at the end too, as in what
# `kubectl create configmap --from-file` makes of a file with one line.

Duration = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]+([.][0-9]+)?(ms|s|m|h|d)\Z",
        description="a duration such as 500ms, 30s, 5m or 24h",
    ),
]
"""A length of time with its unit: `500ms`, `30s`, `5m`, `24h`, `7d`."""

Mode = Annotated[
    str,
    Meta(pattern=r"^0?[0-7]{3}\Z", description='octal permission bits in quotes, such as "0640"'),
]
"""Permission bits in octal, quoted because YAML reads a bare 0640 as a number: `"0640"`."""

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(duration: str) -> float:
    """Return the length of a `Duration` in seconds."""
    number = duration.rstrip("dhms")
    return float(number) * _SECONDS[duration[len(number) :]]


def permissions(mode: str) -> int:
    """Return the permission bits of a `Mode`."""
    return int(mode, 8)


Text = Annotated[
    str, Meta(min_length=1, pattern=r"^[^\x00]+\Z", description="some text, without NUL characters")
]
"""A path, a name or the like; no system call and no header takes a NUL."""

OptionalText = Annotated[
    str, Meta(pattern=r"^[^\x00]*\Z", description="text without NUL characters")
]
"""The same, where the empty text means none."""

SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path


class _Model(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename="camel",
    omit_defaults=True,
):
    """A part of the configuration; unknown keys are faults, so a typo is never ignored."""


class KubernetesAuth(_Model, frozen=True, tag_field="method", tag="kubernetes"):
    """Log in with the pod's service-account token, which Vault asks the cluster about."""

    role: Text
    mount: Text = "kubernetes"
    token_file: Text = SERVICE_ACCOUNT_TOKEN


class JwtAuth(_Model, frozen=True, tag_field="method", tag="jwt"):
    """Log in with the pod's service-account token, which Vault checks against the issuer's keys."""

    role: Text
    mount: Text = "jwt"
    token_file: Text = SERVICE_ACCOUNT_TOKEN


class AppRoleAuth(_Model, frozen=True, tag_field="method", tag="approle"):
    """Log in with a role id and a secret id, each from a file."""

    role_id_file: Text
    secret_id_file: Text
    mount: Text = "approle"
    # The file holds a wrapping token; it is unwrapped once, and the secret id stays in memory.
    secret_id_wrapped: bool = False


class CertAuth(_Model, frozen=True, tag_field="method", tag="cert"):
    """Log in with a TLS client certificate."""

    cert_file: Text
    key_file: Text
    mount: Text = "cert"
    # Without a role, Vault tries every certificate role of the mount.
    role: OptionalText = ""


class TokenAuth(_Model, frozen=True, tag_field="method", tag="token"):
    """Use a token as it is, from a file (read afresh when refused) or from VAULT_TOKEN."""

    token_file: OptionalText = ""


Auth = KubernetesAuth | JwtAuth | AppRoleAuth | CertAuth | TokenAuth


class VaultConfig(_Model, frozen=True):
    """The server behind all `vaultKV` and `vaultPKI` sources, with one login for all."""

    address: Text
    auth: Auth
    namespace: OptionalText = ""
    # PEM file of the CA that signed the server's certificate; else the system's, or
    # REQUESTS_CA_BUNDLE.
    ca_file: OptionalText = ""
    # http:// sends tokens and keys in the clear; without this it is taken for loopback only.
    plain_http: bool = False
    connect_timeout: Duration = "3s"
    # A request's whole time, enforced while a body drips; keep it under the pod's
    # terminationGracePeriodSeconds, because a stop waits for the request in flight.
    request_timeout: Duration = "10s"


_EntraName = Annotated[
    str, Meta(pattern=r"^[0-9a-zA-Z.-]*\Z", description="the id that Entra ID shows (a GUID)")
]
"""The id of a tenant (or its domain), or of an application; the empty text means none."""


class WorkloadIdentity(_Model, frozen=True, tag_field="method", tag="workloadIdentity"):
    """Log in with the pod's service-account token, which the application's federation trusts.

    What is not given is what AKS's webhook put into the pod: AZURE_TENANT_ID, AZURE_CLIENT_ID and
    AZURE_FEDERATED_TOKEN_FILE.
    """

    tenant_id: _EntraName = ""
    client_id: _EntraName = ""
    token_file: OptionalText = ""


class ManagedIdentity(_Model, frozen=True, tag_field="method", tag="managedIdentity"):
    """Log in as the machine: its own identity, or the one with this client id."""

    client_id: _EntraName = ""


class ClientSecret(_Model, frozen=True, tag_field="method", tag="clientSecret"):
    """Log in as an application, with a secret from a file."""

    tenant_id: _EntraName
    client_id: _EntraName
    secret_file: Text


class ClientCertificate(_Model, frozen=True, tag_field="method", tag="clientCertificate"):
    """Log in as an application, with an RSA certificate and its key: PEM or PKCS #12."""

    tenant_id: _EntraName
    client_id: _EntraName
    certificate_file: Text
    password_file: OptionalText = ""


class AzureCli(_Model, frozen=True, tag_field="method", tag="azureCli"):
    """Use the login of `az`, on a laptop."""

    tenant_id: _EntraName = ""


AzureCredential = WorkloadIdentity | ManagedIdentity | ClientSecret | ClientCertificate | AzureCli
_NAMED: dict[str, AzureCredential] = {
    "workloadIdentity": WorkloadIdentity(),
    "managedIdentity": ManagedIdentity(),
    "azureCli": AzureCli(),
}


class AzureConfig(_Model, frozen=True):
    """The Key Vault that all `azureKeyVault` sources of this agent read from, with one login."""

    # https://<vault name>.<the cloud's suffix>
    vault_url: Text
    # Decides where the login is, and the suffix that vaultUrl must have.
    cloud: Literal["public", "china", "usGovernment"] = "public"
    # A name alone stands for that method without settings.
    credential: AzureCredential | Literal["workloadIdentity", "managedIdentity", "azureCli"] = (
        WorkloadIdentity()
    )
    connect_timeout: Duration = "3s"
    # As vault.requestTimeout.
    request_timeout: Duration = "10s"

    @property
    def login(self) -> AzureCredential:
        """The credential, also where it was given by its name."""
        return _NAMED[self.credential] if isinstance(self.credential, str) else self.credential


class PartNamesConfig(_Model, frozen=True):
    """What a store calls the parts; a part without a name has its kind's default."""

    private_key: Text | UnsetType = UNSET
    certificate: Text | UnsetType = UNSET
    chain: Text | UnsetType = UNSET
    roots: Text | UnsetType = UNSET
    # Read where it exists.
    crls: Text | UnsetType = UNSET

    def given(self) -> dict[str, str]:
        """Return the names that were given, by part."""
        return {part: name for part, name in asdict(self).items() if name is not UNSET}


class VaultKVSource(_Model, frozen=True):
    """A secret of Vault's key-value engine that holds all parts."""

    mount: Text
    path: Text
    # Found out from the server when not given.
    kv_version: Literal[1, 2] | UnsetType = UNSET
    fields: PartNamesConfig = PartNamesConfig()


SecretName = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-zA-Z-]{1,127}\Z",
        description="a name of letters, digits and dashes, 127 at most",
    ),
]
"""The name of a secret, or of a certificate object, in a Key Vault."""


class SecretNamesConfig(PartNamesConfig, frozen=True):
    """The secret of each part; a part without a name has its kind's default."""

    private_key: SecretName | UnsetType = UNSET
    certificate: SecretName | UnsetType = UNSET
    chain: SecretName | UnsetType = UNSET
    roots: SecretName | UnsetType = UNSET
    # Read only where it is named: looking for it costs a request at each poll.
    crls: SecretName | UnsetType = UNSET


class AzureKeyVaultSource(_Model, frozen=True):
    """Secrets of the vault: one for each part (the default), a certificate object, or one JSON."""

    secrets: SecretNamesConfig | UnsetType = UNSET
    # A certificate object, read through the secret that Key Vault keeps behind it.
    certificate: SecretName | UnsetType = UNSET
    # The secret with the roots that belong to the certificate object; optional for kind: tls.
    roots: SecretName | UnsetType = UNSET
    # One secret that holds all parts as a JSON object, under the names of Vault's fields.
    secret: SecretName | UnsetType = UNSET


class VaultPKISource(_Model, frozen=True):
    """A certificate that Vault's PKI engine issues, for a key that never leaves the pod.

    With `role` a leaf (kind: tls), without one an intermediate CA (kind: ca).
    """

    mount: Text
    # What is asked for; renewed after two thirds of it at the latest. A CA needs a few days at
    # least: what istiod signs ends with its signer.
    ttl: Duration
    # The subject's CN. A leaf without one has its first DNS name there that is not too long for it.
    common_name: OptionalText = ""
    key_type: Literal["rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384"] = "rsa-2048"
    role: OptionalText = ""
    # A leaf's alternative names, as its role allows them.
    dns_names: tuple[Text, ...] = ()
    uri_sans: tuple[Text, ...] = ()
    ip_sans: tuple[Text, ...] = ()
    # How many CAs may stand below an intermediate: 0 is right for istiod, which signs leafs.
    path_length: Annotated[int, Meta(ge=0, le=10)] = 0
    # The issuer's id or name in the mount. Not given, it is the mount's default issuer, asked at
    # sign-intermediate or sign/<role>; else at issuer/<this>/…, which `default` names too.
    issuer: OptionalText = ""


class FilesSource(_Model, frozen=True):
    """A directory that holds the parts under the names that their reader opens."""

    directory: Text


class SourceConfig(_Model, frozen=True):
    """Where a bundle comes from: exactly one of these."""

    vault_kv: VaultKVSource | UnsetType = field(default=UNSET, name="vaultKV")
    vault_pki: VaultPKISource | UnsetType = field(default=UNSET, name="vaultPKI")
    azure_key_vault: AzureKeyVaultSource | UnsetType = UNSET
    files: FilesSource | UnsetType = UNSET


class OutputConfig(_Model, frozen=True):
    """Where a bundle goes."""

    directory: Text
    # istiod: ROOT_CA_DIR as the kubelet lays a Secret out; gateway: `current`, a link to the set.
    # Not set, it is istiod for a CA, gateway for kind tls.
    layout: Literal["istiod", "gateway"] | UnsetType = UNSET
    # istiod runs as the agent's own user; a reader with another user of the same group needs 0640.
    key_mode: Mode = "0600"
    mode: Mode = "0644"


class _HookModel(_Model, frozen=True, kw_only=True):
    """What all hooks have: when they run, how often they are tried, and how replicas are spread."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z",
            description="a name of lower-case letters, digits, dots and dashes, 63 at most",
        ),
    ]
    # certificate: when key, certificate or chain changed; roots: when the set of roots did.
    on: Literal["any", "certificate", "roots"] = "any"
    # unconfirmed: the reader did not take the set within confirm.within.
    events: Annotated[tuple[Literal["published", "unconfirmed"], ...], Meta(min_length=1)] = (
        "published",
    )
    attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    # Each replica waits a time of its own, of so much at most: they must not restart all at once.
    spread: Duration = "0s"


class ExecHook(_HookModel, frozen=True, kw_only=True, tag_field="kind", tag="exec"):
    """Run a command, without a shell; the event is JSON on its standard input."""

    command: Annotated[tuple[Text, ...], Meta(min_length=1)]
    timeout: Duration = "30s"


class SignalHook(_HookModel, frozen=True, kw_only=True, tag_field="kind", tag="signal"):
    """Signal the processes of a name, in a pod with shareProcessNamespace."""

    process: Text
    signal: Literal["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT", "SIGQUIT"] = "SIGHUP"


class HttpHook(_HookModel, frozen=True, kw_only=True, tag_field="kind", tag="http"):
    """Send the event as JSON to a URL: https://, or http:// on loopback."""

    url: Text
    method: Literal["POST", "PUT"] = "POST"
    timeout: Duration = "10s"
    ca_file: OptionalText = ""


HookConfig = ExecHook | SignalHook | HttpHook


class ConfirmConfig(_Model, frozen=True):
    """Where the reader of a bundle serves TLS, to see by a handshake whether it took the set."""

    # HOST:PORT on the pod's loopback: istiod's 127.0.0.1:15012.
    address: Text
    # How long the reader may take before it counts as unconfirmed.
    within: Duration = "30s"
    # The name to ask for (SNI); istiod does not need one.
    server_name: OptionalText = ""


class FallbackConfig(_Model, frozen=True):
    """What a start uses that cannot reach its store for half its deadline."""

    files: FilesSource


class BundleConfig(_Model, frozen=True):
    """One set of material: from where, to where."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z",
            description="a name of lower-case letters, digits, dots and dashes, 63 at most",
        ),
    ]
    source: SourceConfig
    output: OutputConfig
    # ca: the CA of a mesh, for istiod; tls: a certificate of a gateway or a client, with its key.
    kind: Literal["ca", "tls"] = "ca"
    # Of kind tls, as what the certificate is shown; server when not given.
    usage: Literal["server", "client", "both"] | UnsetType = UNSET
    # `init` fails, and `/readyz` says no, while a required bundle is not published.
    required: bool = True
    hooks: tuple[HookConfig, ...] = ()
    confirm: ConfirmConfig | UnsetType = UNSET
    fallback: FallbackConfig | UnsetType = UNSET

    @property
    def layout(self) -> Literal["istiod", "gateway"]:
        """The output's layout: as given, or the one that readers of its kind follow best."""
        own: Literal["istiod", "gateway"] = "istiod" if self.kind == "ca" else "gateway"
        return own if self.output.layout is UNSET else self.output.layout


class RefreshConfig(_Model, frozen=True):
    """How often the store is asked: one small request a bundle each time."""

    interval: Duration = "30s"


class RotationConfig(_Model, frozen=True):
    """How a change of a CA's roots is staged; the same in every agent of a mesh."""

    # How long a new root is published before anybody signs under it, and how long an old one stays
    # after its last signer was superseded: the longest workload TTL and the slack.
    distribute: Duration = "25h"
    retire: Duration = "25h"
    # Covers poll and reload lag, three clock offsets, and twice the spread of pushes over clusters.
    slack: Duration = "1h"
    # The longest TTL of a workload certificate, where the windows are to be checked against it.
    workload_ttl: Duration | UnsetType = field(default=UNSET, name="workloadTTL")
    # immediate: the newest set at once, as it is. For emergencies.
    strategy: Literal["staged", "immediate"] = "staged"
    # What istiod can do with a change of roots: reload it (ISTIO_MULTIROOT_MESH=true), be restarted
    # by the hooks, or neither. Not set, it follows ISTIO_MULTIROOT_MESH: `true` is hot, else hold.
    istiod: Literal["hot", "restart", "hold"] | UnsetType = UNSET


class TrustConfig(_Model, frozen=True):
    """Which roots may be published, whoever stores them; none given means any."""

    roots: tuple[
        Annotated[
            str,
            Meta(
                pattern=r"^sha256:[0-9a-f]{64}\Z",
                description="sha256: and 64 hex digits, as `certagent check` shows them",
            ),
        ],
        ...,
    ] = ()


class InitConfig(_Model, frozen=True):
    """How long `init` tries before it fails the pod."""

    deadline: Duration = "5m"


class ServerConfig(_Model, frozen=True):
    """Where `run` answers `/livez`, `/readyz` and `/metrics`; `""` switches it off."""

    # Not set, it is :9089, and a port that is taken costs the probes; one that was asked for must
    # be had.
    address: str | UnsetType = UNSET


class LogConfig(_Model, frozen=True):
    """What the log looks like."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Model, frozen=True):
    """All that an operator can ask for."""

    bundles: Annotated[tuple[BundleConfig, ...], Meta(min_length=1)]
    vault: VaultConfig | UnsetType = UNSET
    azure: AzureConfig | UnsetType = UNSET
    refresh: RefreshConfig = RefreshConfig()
    rotation: RotationConfig = RotationConfig()
    trust: TrustConfig = TrustConfig()
    init: InitConfig = InitConfig()
    server: ServerConfig = ServerConfig()
    log: LogConfig = LogConfig()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration file."""
    import msgspec  # noqa: PLC0415 - the schema's machinery is not for the agent's start

    # In JSON's patterns (ECMA 262) there is no \Z, and `$` is the end alone.
    schema = msgspec.json.encode(msgspec.json.schema(Config)).replace(rb"\\Z", b"$")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "certagent configuration",
        **msgspec.json.decode(schema),
    }
