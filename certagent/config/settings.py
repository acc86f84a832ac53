"""Every setting that a flag or an environment variable can give, in one table.

A flag wins over the environment, the environment over the file. An empty variable counts as unset,
because that is how Helm renders a value that was not given.
"""

from __future__ import annotations

from msgspec import Struct


class Setting(Struct, frozen=True):
    """One scalar: the variable that sets it, its path in the file, and its flag, if it has one."""

    variable: str
    path: tuple[str, ...]
    help: str
    flag: str = ""


BUNDLE = "bundles[0]"
"""The one CA that the environment can describe, also without a file."""

SETTINGS = (
    Setting(
        "CERTAGENT_SOURCE",
        (BUNDLE, "source"),
        "where the CA comes from: vault:<mount>/<path>, azure:<vault name>[/<secret>],"
        " file:<directory>",
        "--source",
    ),
    Setting(
        "ROOT_CA_DIR",
        (BUNDLE, "output", "directory"),
        "where the CA is published: istiod's ROOT_CA_DIR",
        "--directory",
    ),
    Setting("VAULT_ADDR", ("vault", "address"), "Vault's URL"),
    Setting("VAULT_NAMESPACE", ("vault", "namespace"), "Vault's namespace"),
    Setting("VAULT_CACERT", ("vault", "caFile"), "PEM file of the CA of Vault's certificate"),
    Setting(
        "CERTAGENT_VAULT_PLAIN_HTTP",
        ("vault", "plainHttp"),
        "true: http:// to another machine is meant (tokens and keys travel in the clear)",
    ),
    Setting(
        "CERTAGENT_VAULT_AUTH_METHOD",
        ("vault", "auth", "method"),
        "kubernetes (default), jwt, approle, cert or token",
    ),
    Setting("CERTAGENT_VAULT_AUTH_MOUNT", ("vault", "auth", "mount"), "the login method's mount"),
    Setting("CERTAGENT_VAULT_ROLE", ("vault", "auth", "role"), "the role to log in as"),
    Setting(
        "CERTAGENT_VAULT_TOKEN_FILE",
        ("vault", "auth", "tokenFile"),
        "file of the service-account token, or of the Vault token (method token)",
    ),
    Setting("CERTAGENT_VAULT_ROLE_ID_FILE", ("vault", "auth", "roleIdFile"), "approle: role id"),
    Setting(
        "CERTAGENT_VAULT_SECRET_ID_FILE", ("vault", "auth", "secretIdFile"), "approle: secret id"
    ),
    Setting(
        "CERTAGENT_VAULT_SECRET_ID_WRAPPED",
        ("vault", "auth", "secretIdWrapped"),
        "true: the file holds a wrapping token, to be unwrapped once",
    ),
    Setting("CERTAGENT_VAULT_CERT_FILE", ("vault", "auth", "certFile"), "cert: certificate"),
    Setting("CERTAGENT_VAULT_KEY_FILE", ("vault", "auth", "keyFile"), "cert: private key"),
    Setting("CERTAGENT_AZURE_CLOUD", ("azure", "cloud"), "public (default), china or usGovernment"),
    Setting(
        "CERTAGENT_AZURE_VAULT_URL",
        ("azure", "vaultUrl"),
        "the Key Vault's URL, where CERTAGENT_SOURCE does not name the vault",
    ),
    Setting(
        "CERTAGENT_AZURE_CREDENTIAL",
        ("azure", "credential", "method"),
        "workloadIdentity (default), managedIdentity, clientSecret, clientCertificate or azureCli",
    ),
    Setting(
        "CERTAGENT_AZURE_TENANT_ID",
        ("azure", "credential", "tenantId"),
        "the tenant to log in to; workloadIdentity: else AZURE_TENANT_ID",
    ),
    Setting(
        "CERTAGENT_AZURE_CLIENT_ID",
        ("azure", "credential", "clientId"),
        "the identity to log in as; workloadIdentity: else AZURE_CLIENT_ID",
    ),
    Setting(
        "CERTAGENT_AZURE_TOKEN_FILE",
        ("azure", "credential", "tokenFile"),
        "workloadIdentity: service-account token, else AZURE_FEDERATED_TOKEN_FILE",
    ),
    Setting(
        "CERTAGENT_AZURE_SECRET_FILE", ("azure", "credential", "secretFile"), "clientSecret: secret"
    ),
    Setting(
        "CERTAGENT_AZURE_CERTIFICATE_FILE",
        ("azure", "credential", "certificateFile"),
        "clientCertificate: certificate and key, PEM or PKCS #12",
    ),
    Setting(
        "CERTAGENT_AZURE_PASSWORD_FILE",
        ("azure", "credential", "passwordFile"),
        "clientCertificate: the file's password",
    ),
    Setting(
        "CERTAGENT_INTERVAL",
        ("refresh", "interval"),
        "time between two polls, such as 30s",
        "--interval",
    ),
    Setting(
        "CERTAGENT_DISTRIBUTE",
        ("rotation", "distribute"),
        "how long a new root is published before anybody signs under it",
    ),
    Setting(
        "CERTAGENT_RETIRE",
        ("rotation", "retire"),
        "how long an old root stays after its last signer was superseded",
    ),
    Setting("CERTAGENT_SLACK", ("rotation", "slack"), "lag, clock offsets, spread of pushes"),
    Setting(
        "CERTAGENT_STRATEGY",
        ("rotation", "strategy"),
        "staged, or immediate for emergencies",
    ),
    Setting(
        "CERTAGENT_ISTIOD",
        ("rotation", "istiod"),
        "what istiod does with new roots: hot, restart or hold",
    ),
    Setting(
        "CERTAGENT_INIT_DEADLINE",
        ("init", "deadline"),
        "how long init tries before it fails, such as 5m",
        "--deadline",
    ),
    Setting(
        "CERTAGENT_SERVER_ADDRESS",
        ("server", "address"),
        "HOST:PORT of probes and metrics; no host means all",
        "--server",
    ),
    Setting("CERTAGENT_LOG_FORMAT", ("log", "format"), "text or json", "--log-format"),
    Setting(
        "CERTAGENT_LOG_LEVEL",
        ("log", "level"),
        "debug, info, warning or error",
        "--log-level",
    ),
)
