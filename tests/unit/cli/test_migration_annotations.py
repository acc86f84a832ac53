"""The table of annotations: complete, and each row is what happens."""

from __future__ import annotations

import re

import pytest
import yaml

from certagent.cli.migration import delivery
from certagent.cli.migration.annotations import (
    MAPPED,
    PREFIX,
    REFUSED,
    TABLE,
    UNNECESSARY,
    Annotations,
)
from certagent.cli.migration.injected import injected_files
from certagent.cli.migration.login import Wishes
from certagent.cli.migration.reading import places
from certagent.cli.migration.translation import migrate
from certagent.errors import ConfigurationError
from certagent.kubernetes.options import Options
from tests.support.injector import annotations, template, values

# agent-inject/agent/annotations.go and agent.go of vault-k8s 1.7.6.
_NAMES = """
agent-inject agent-inject-status agent-inject-secret-NAME agent-inject-template-NAME
agent-inject-template-file-NAME agent-inject-file-NAME agent-inject-perms-NAME
agent-inject-command-NAME agent-template-left-delim-NAME agent-template-right-delim-NAME
error-on-missing-key-NAME secret-volume-path[-NAME] preserve-secret-case[-NAME]
agent-inject-default-template agent-inject-containers agent-inject-token agent-image
agent-request-namespace agent-init-first agent-pre-populate agent-pre-populate-only agent-configmap
agent-extra-secret agent-limits-cpu agent-limits-mem agent-limits-ephemeral agent-requests-cpu
agent-requests-mem agent-requests-ephemeral agent-revoke-on-shutdown agent-revoke-grace
agent-run-as-user agent-run-as-group agent-run-as-same-user agent-set-security-context
agent-share-process-namespace agent-service-account-token-volume-name agent-copy-volume-mounts
agent-enable-quit agent-cache-enable agent-cache-use-auto-auth-token agent-cache-listener-port
agent-cache-exit-on-err agent-auto-auth-exit-on-err auth-min-backoff auth-max-backoff
agent-disable-idle-connections agent-disable-keep-alives agent-json-patch agent-init-json-patch
agent-telemetry-KEY template-config-exit-on-retry-failure template-static-secret-render-interval
template-max-connections-per-host template-lease-renewal-threshold service role auth-type auth-path
auth-config-KEY namespace proxy-address tls-skip-verify tls-secret tls-server-name ca-cert
client-cert client-key ca-key client-max-retries client-timeout go-max-procs log-level log-format
"""
OF_THE_INJECTOR = _NAMES.split()


def migrated(given: dict[str, object], wishes: Wishes = Wishes()) -> dict:  # noqa: B008 - frozen
    """The overlay of a good set with these annotations, and of a file for it."""
    (place,) = places(values(given).encode(), "values.yaml")
    migration = migrate(place, wishes)
    return {"overlay": delivery.values(migration, Options()), "file": migration.document}


def refusal(given: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        migrated(given)
    return refused.value.faults


def test_all_74_are_in_the_table_once():
    assert len(OF_THE_INJECTOR) == 74
    assert sorted(TABLE) == sorted(OF_THE_INJECTOR)
    assert len(MAPPED) + len(UNNECESSARY) + len(REFUSED) == 74


@pytest.mark.parametrize("reason", [reason for _, reason in TABLE.values()])
def test_every_row_says_why_in_one_line(reason):
    assert 10 < len(reason) < 120
    assert not reason.endswith(".")


MAPPED_TO = {
    "agent-inject": ({"agent-inject": "true"}, "agent-inject: 'false'"),
    "agent-inject-secret-NAME": (
        {"agent-inject-secret-ca-crl.pem": "kv/istiod/certs"}
        | {"agent-inject-template-ca-crl.pem": template("lists")},
        "crls: lists",
    ),
    "agent-inject-template-NAME": (
        {"agent-inject-template-ca-key.pem": template("key")},
        "privateKey: key",
    ),
    "agent-template-left-delim-NAME": (
        {"agent-inject-template-ca-key.pem": template("key").replace("{{", "<<")}
        | {"agent-template-left-delim-ca-key.pem": "<<"},
        "privateKey: key",
    ),
    "agent-template-right-delim-NAME": (
        {"agent-inject-template-ca-key.pem": template("key").replace("}}", ">>")}
        | {"agent-template-right-delim-ca-key.pem": ">>"},
        "privateKey: key",
    ),
    "agent-inject-file-NAME": (
        {"agent-inject-secret-ca-key.pem": None, "agent-inject-template-ca-key.pem": None}
        | {"agent-inject-secret-Key": "kv/istiod/certs"}
        | {"agent-inject-template-Key": template("key"), "agent-inject-file-Key": "ca-key.pem"},
        "privateKey: key",
    ),
    "secret-volume-path[-NAME]": ({"secret-volume-path": "/etc/ca"}, "directory: /etc/ca"),
    "preserve-secret-case[-NAME]": (
        {"agent-inject-secret-ca-key.pem": None, "agent-inject-template-ca-key.pem": None}
        | {"agent-inject-secret-CA-KEY.pem": "kv/istiod/certs"}
        | {"agent-inject-template-CA-KEY.pem": template("key"), "preserve-secret-case": "false"},
        "privateKey: key",
    ),
    "agent-pre-populate": ({"agent-pre-populate": "true"}, "- run"),
    "agent-pre-populate-only": ({"agent-pre-populate-only": "true"}, "- init"),
    "agent-extra-secret": (
        {"agent-extra-secret": "approle", "auth-type": "approle", "role": None}
        | {"auth-config-role-id-file-path": "/vault/custom/role-id"}
        | {"auth-config-secret-id-file-path": "/vault/custom/secret-id"},
        "secretName: approle",
    ),
    "agent-limits-cpu": ({"agent-limits-cpu": "300m"}, "cpu: 300m"),
    "agent-limits-mem": ({"agent-limits-mem": "256Mi"}, "memory: 256Mi"),
    "agent-limits-ephemeral": ({"agent-limits-ephemeral": "1Gi"}, "ephemeral-storage: 1Gi"),
    "agent-requests-cpu": ({"agent-requests-cpu": "300m"}, "cpu: 300m"),
    "agent-requests-mem": ({"agent-requests-mem": "100Mi"}, "memory: 100Mi"),
    "agent-requests-ephemeral": ({"agent-requests-ephemeral": "1Gi"}, "ephemeral-storage: 1Gi"),
    "template-static-secret-render-interval": (
        {"template-static-secret-render-interval": "1m30s"},
        "interval: 90s",
    ),
    "service": ({"service": "https://other:8200"}, "address: https://other:8200"),
    "namespace": ({"namespace": "mesh/prod"}, "namespace: mesh/prod"),
    "proxy-address": ({"proxy-address": "http://proxy:3128"}, "value: http://proxy:3128"),
    "role": ({"role": "istiod-ca"}, "role: istiod-ca"),
    "auth-type": ({"auth-type": "jwt"}, "method: jwt"),
    "auth-path": ({"auth-path": "auth/a/b"}, "mount: a/b"),
    "auth-config-KEY": ({"role": None, "auth-config-role": "istiod-2"}, "role: istiod-2"),
    "tls-secret": (
        {"tls-secret": "vault-tls", "ca-cert": "/vault/tls/ca.crt"},
        "secretName: vault-tls",
    ),
    "ca-cert": (
        {"tls-secret": "vault-tls", "ca-cert": "/vault/tls/ca.crt"},
        "caFile: /vault/tls/ca.crt",
    ),
    "client-timeout": ({"client-timeout": "20s"}, "requestTimeout: 20s"),
    "log-level": ({"log-level": "warn"}, "level: warning"),
    "log-format": ({"log-format": "json"}, "format: json"),
}
CERT = {"auth-type": "cert", "role": None, "tls-secret": "vault-tls"} | {
    "client-cert": "/vault/tls/tls.crt",
    "client-key": "/vault/tls/tls.key",
}
MAPPED_TO["client-cert"] = (CERT, "certFile: /vault/tls/tls.crt")
MAPPED_TO["client-key"] = (CERT, "keyFile: /vault/tls/tls.key")
ELSEWHERE = {"agent-init-first", "agent-service-account-token-volume-name"}
"""Those that need something beside the annotations: they are in test_migration.py."""


@pytest.mark.parametrize("notation", sorted(MAPPED.keys() - ELSEWHERE))
def test_what_is_mapped_is_in_the_overlay_or_in_the_file(notation):
    changes, expected = MAPPED_TO[notation]

    assert expected in yaml.safe_dump(migrated(annotations(changes)))


def named(notation: str) -> str:
    return re.sub(r"\[?-(NAME|KEY)\]?", "-ca-key.pem", notation)


@pytest.mark.parametrize("notation", UNNECESSARY)
def test_what_is_not_needed_changes_nothing(notation):
    assert migrated(annotations({named(notation): "1"})) == migrated(annotations())


@pytest.mark.parametrize("notation", REFUSED)
def test_what_is_refused_is_named_with_the_reason(notation):
    (fault,) = refusal(annotations({named(notation): "true"}))

    assert fault == f"{named(notation)}: {REFUSED[notation]}"


@pytest.mark.parametrize("notation", REFUSED)
@pytest.mark.parametrize("value", ["", None])
def test_what_asks_for_nothing_is_not_refused(notation, value):
    assert migrated(annotations({named(notation): value})) == migrated(annotations())


@pytest.mark.parametrize("name", ["agent-inject-token", "tls-skip-verify"])
def test_a_refused_one_may_be_off(name):
    assert migrated(annotations({name: False})) == migrated(annotations())


def test_an_unknown_one_is_a_fault_that_names_the_nearest():
    (fault,) = refusal(annotations({"agent-inject-secrets": "kv/a"}))

    assert fault == (
        "agent-inject-secrets: vault-agent's injector knows no such annotation;"
        " did you mean agent-inject-secret-NAME?"
    )


@pytest.mark.parametrize("name", ["agent-inject-secret-", "agent-inject-secret", "wholly-other"])
def test_a_name_that_needs_a_suffix_is_not_known_without(name):
    (fault,) = refusal(annotations({name: "kv/a"}))

    assert fault.startswith(f"{name}: vault-agent's injector knows no such annotation")


def test_the_longest_name_counts():
    (fault,) = refusal(annotations({"agent-inject-template-file-x": "/t"}))

    assert fault.startswith("agent-inject-template-file-x: the template is in a container")


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("agent-init-first", "first", "agent-init-first: expected true or false, got 'first'"),
        ("role", ["istiod"], "role: expected text, got list"),
        ("role", 1.5, "role: expected text, got float"),
        ("log-level", "loud", "log-level: expected one of trace, debug, notice, info, warn,"),
        ("log-format", "xml", "log-format: expected one of standard, json, got 'xml'"),
        ("client-timeout", "soon", "client-timeout: expected a duration such as 30s or 5m, got"),
        ("agent-limits-cpu", "much", "agent-limits-cpu: expected a quantity such as 64Mi, got"),
        ("auth-type", "aws", "auth-type: 'aws' is no login of certagent's: kubernetes, jwt,"),
        ("auth-config-secret", "x", "auth-config-secret: the login kubernetes of certagent has"),
        ("client-key", "/k", "client-key: a client certificate is shown with auth-type cert alone"),
        ("auth-config-role", "b", "role: 'istiod', where auth-config has 'b'"),
        ("role", None, "role: missing, the login kubernetes needs it"),
        ("service", "http://vault:8200", "vault.address: http://vault would send tokens and keys"),
        ("service", None, "service: not given, the injector knew Vault's address by itself"),
        (
            "auth-config-token-path",
            "/t/vault",
            "auth-config: the audience of the token in /t/vault",
        ),
        ("agent-service-account-token-volume-name", "t", "agent-service-account-token-volume-name"),
        ("agent-pre-populate-only", True, None),
    ],
)
def test_a_wrong_value_is_a_fault_with_its_name(name, value, fault):
    if fault is None:
        fault, more = "agent-pre-populate-only: true, where", {"agent-pre-populate": "false"}
    else:
        more = {}

    (found,) = refusal(annotations({name: value, **more}))

    assert found.startswith(fault)


def test_all_faults_are_told_at_once_and_with_what_to_do():
    given = annotations({"agent-configmap": "c", "agent-inject-token": "true", "loglevel": "info"})

    with pytest.raises(ConfigurationError) as refused:
        migrated(given)

    assert len(refused.value.faults) == 3
    assert str(refused.value).endswith("take out what the mesh can do without, and run it again.")


def test_faults_of_templates_login_and_log_are_told_at_once():
    changes = {
        "agent-inject-template-ca-key.pem": "{{ key }}",
        "auth-type": "aws",
        "log-level": "x",
    }

    assert len(refusal(annotations(changes))) == 3


@pytest.mark.parametrize(
    ("go", "ours"),
    [("90", "90s"), ("30s", "30s"), ("1h2m3.5s", "3723.5s"), ("1.5m", "1.5m"), ("250ms", "250ms")],
)
def test_durations_are_taken_in_all_of_gos_forms(go, ours):
    name = "template-static-secret-render-interval"

    assert migrated(annotations({name: go}))["file"]["refresh"] == {"interval": ours}


def test_an_address_on_the_command_line_wins():
    made = migrated(annotations(), Wishes(address="https://other"))

    assert made["file"]["vault"]["address"] == "https://other"


def test_plain_http_may_be_meant():
    made = migrated(annotations(service="http://vault:8200"), Wishes(plain_http=True))

    assert made["file"]["vault"]["plainHttp"] is True


def test_all_logins_are_known_by_certagents_names():
    approle = {
        "auth-type": "approle",
        "auth-config-role-id-file-path": "/vault/custom/role",
        "auth-config-secret-id-file-path": "/vault/custom/secret",
        "auth-config-secret-id-response-wrapping-path": "auth/approle/role/istiod/secret-id",
        "auth-config-remove-secret-id-file-after-reading": "false",
        "agent-extra-secret": "approle",
        "auth-path": None,
    }

    assert migrated(annotations(approle))["file"]["vault"]["auth"] == {
        "method": "approle",
        "roleIdFile": "/vault/custom/role",
        "secretIdFile": "/vault/custom/secret",
        "secretIdWrapped": True,
    }
    assert migrated(annotations(CERT, **{"auth-config-name": "istiod"}))["file"]["vault"][
        "auth"
    ] == {
        "method": "cert",
        "mount": "kubernetes-cluster1",
        "certFile": "/vault/tls/tls.crt",
        "keyFile": "/vault/tls/tls.key",
        "role": "istiod",
    }


def test_annotations_of_others_are_left_alone():
    given = Annotations({"prometheus.io/scrape": "true", **annotations()})

    assert len(given.all) == 13


def test_many_are_gone_through_once_and_not_for_each_file():
    names = (f"agent-inject-secret-{number}" for number in range(50))
    given = Annotations({f"{PREFIX}{name}": "kv/istiod/certs" for name in names})
    passes = []

    class Counted(tuple):
        __slots__ = ()

        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    given.all = Counted(given.all)
    faults = []

    assert injected_files(given, faults) == []
    assert len(faults) == 50
    assert len(passes) < 5
