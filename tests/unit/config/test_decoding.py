"""The configuration: a file, the environment and flags, and every fault of them in one go."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certagent.config.decoding import load, parse_source
from certagent.config.model import (
    AppRoleAuth,
    Config,
    KubernetesAuth,
    TokenAuth,
    json_schema,
    permissions,
    seconds,
)
from certagent.config.settings import SETTINGS
from certagent.errors import ConfigurationError

ENVIRONMENT = {
    "VAULT_ADDR": "https://vault.example.com:8200",
    "ROOT_CA_DIR": "/etc/istio-ca",
    "CERTAGENT_SOURCE": "vault:kubernetes-cluster1-secrets/istiod-service/certs",
    "CERTAGENT_VAULT_AUTH_MOUNT": "kubernetes-cluster1",
    "CERTAGENT_VAULT_ROLE": "istiod",
}

FILE = """
vault:
  address: https://vault.example.com:8200
  auth: {method: kubernetes, mount: kubernetes-cluster1, role: istiod}
bundles:
- name: istiod-ca
  kind: ca
  source: {vaultKV: {mount: secrets, path: istiod/certs}}
  output: {directory: /etc/istio-ca, layout: istiod}
refresh: {interval: 30s}
server: {address: ":9089"}
log: {format: json, level: info}
"""


MIXED = """
bundles:
- name: mesh
  kind: ca
  source: {files: {directory: /a}}
  output: {directory: /mesh}
- name: ingress
  kind: tls
  source: {files: {directory: /b}}
  output: {directory: /in}
- name: egress
  kind: tls
  usage: client
  source: {files: {directory: /c}}
  output: {directory: /out, layout: istiod}
"""


@pytest.fixture
def write(tmp_path):
    def write_(text: str | bytes) -> str:
        path = tmp_path / "certagent.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write_


def faults(path: str | None, environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        load(path, environ)
    return refused.value.faults


class TestSources:
    def test_the_environment_alone_configures_one_ca(self):
        config = load(None, ENVIRONMENT)

        (bundle,) = config.bundles
        assert bundle.name == "istiod-ca"
        assert bundle.source.vault_kv.mount == "kubernetes-cluster1-secrets"
        assert bundle.source.vault_kv.path == "istiod-service/certs"
        assert bundle.output.directory == "/etc/istio-ca"
        assert isinstance(config.vault.auth, KubernetesAuth)
        assert config.vault.auth.mount == "kubernetes-cluster1"

    def test_a_file_alone_configures_all(self, write):
        config = load(write(FILE), {})

        assert config.vault.address == "https://vault.example.com:8200"
        assert seconds(config.refresh.interval) == 30
        assert config.log.format == "json"

    def test_the_environment_wins_over_the_file(self, write):
        config = load(write(FILE), {"CERTAGENT_INTERVAL": "5s", "ROOT_CA_DIR": "/elsewhere"})

        assert config.refresh.interval == "5s"
        assert config.bundles[0].output.directory == "/elsewhere"
        assert config.bundles[0].output.layout == "istiod"

    def test_an_empty_variable_counts_as_unset(self, write):
        assert load(write(FILE), {"CERTAGENT_INTERVAL": ""}).refresh.interval == "30s"

    def test_a_token_in_the_environment_is_a_login_where_none_is_configured(self):
        environ = {**ENVIRONMENT, "VAULT_TOKEN": "s.token"}
        del environ["CERTAGENT_VAULT_ROLE"], environ["CERTAGENT_VAULT_AUTH_MOUNT"]

        assert load(None, environ).vault.auth == TokenAuth()

    def test_a_token_in_the_environment_does_not_replace_a_configured_login(self):
        config = load(None, {**ENVIRONMENT, "VAULT_TOKEN": "s.token"})

        assert isinstance(config.vault.auth, KubernetesAuth)

    def test_vault_settings_are_left_out_where_nothing_comes_from_vault(self):
        environ = {**ENVIRONMENT, "CERTAGENT_SOURCE": "file:/certs"}

        assert load(None, environ).vault is msgspec.UNSET

    def test_booleans_come_from_the_environment_too(self):
        environ = {
            **ENVIRONMENT,
            "CERTAGENT_VAULT_AUTH_METHOD": "approle",
            "CERTAGENT_VAULT_ROLE_ID_FILE": "/role",
            "CERTAGENT_VAULT_SECRET_ID_FILE": "/secret",
            "CERTAGENT_VAULT_SECRET_ID_WRAPPED": "true",
        }
        del environ["CERTAGENT_VAULT_ROLE"]

        auth = load(None, environ).vault.auth

        assert isinstance(auth, AppRoleAuth)
        assert auth.secret_id_wrapped is True

    @pytest.mark.parametrize("text", ["vault:mount", "vault:/x", "file:", "azure:x", "x", ""])
    def test_a_source_that_cannot_be_read_says_how_one_is_written(self, text):
        with pytest.raises(ValueError, match=r"expected (vault|azure|file):<"):
            parse_source(text)


class TestFaults:
    def test_nothing_at_all_says_what_is_needed(self):
        assert "CERTAGENT_SOURCE" in faults(None, {})[0]

    def test_every_fault_is_told_in_one_go(self, write):
        path = write(
            "bundles:\n"
            "- name: Upper\n"
            "  source: {vaultkv: {}}\n"
            "  outputs: {}\n"
            "vault: {adress: x, auth: {method: kube}}\n"
            "refresh: 30s\n"
            "log: {level: loud}\n"
        )

        told = "\n".join(faults(path, {}))

        for expected in (
            "bundles[0].name: expected a name of lower-case",
            "bundles[0].source.vaultkv: unknown key; did you mean `vaultKV`?",
            "bundles[0].outputs: unknown key; did you mean `output`?",
            "bundles[0].output: missing",
            "vault.adress: unknown key; did you mean `address`?",
            "vault.address: missing; give it in the file, or set VAULT_ADDR",
            "vault.auth.method: expected one of kubernetes, jwt, approle, cert, token",
            "refresh: expected a mapping",
            "log.level: ",
        ):
            assert expected in told

    def test_faults_of_meaning_are_told_with_those_of_form(self, write):
        path = write(FILE.replace("https://vault", "http://vault").replace("30s", "thirty"))

        told = "\n".join(faults(path, {}))

        assert "refresh.interval: expected a duration such as" in told
        assert "would send tokens and keys in the clear" in told

    def test_a_fault_names_the_variable_that_made_it(self):
        told = faults(None, {**ENVIRONMENT, "CERTAGENT_INTERVAL": "3"})

        expected = "expected a duration such as 500ms, 30s, 5m or 24h, got str '3'"
        assert told == (f"CERTAGENT_INTERVAL (refresh.interval): {expected}",)

    def test_a_variable_that_is_not_text_is_a_fault(self):
        assert "not UTF-8" in faults(None, {**ENVIRONMENT, "VAULT_NAMESPACE": "\udcff"})[0]

    def test_an_unquoted_mode_is_explained(self, write):
        path = write(FILE.replace("layout: istiod", "keyMode: 0640"))

        assert "in quotes" in faults(path, {})[0]

    def test_on_is_a_key_and_yes_is_a_text_as_in_yaml_1_2(self, write):
        hook = "hooks: [{kind: exec, name: 'yes', on: roots, command: [off]}]"
        path = write(FILE.replace("  output: {", f"  {hook}\n  output: {{"))

        (hook,) = load(path, {}).bundles[0].hooks

        assert (hook.on, hook.command) == ("roots", ("off",))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a: [", "line 1"),
            ("a: 1\na: 2", "the key 'a' is given twice"),
            ("- a", "is not a YAML mapping"),
            ("", "is not a YAML mapping"),
            (b"\xff\xfe\x00", "is not valid YAML"),
            ("a: !!python/object:os.system {}", "could not determine a constructor"),
            ("a: " + "x" * (1 << 20), "larger than"),
            ("a: &a [*a]", "it is too large with its aliases written out"),
        ],
    )
    def test_a_file_that_is_not_yaml_is_refused_with_its_place(self, write, text, told):
        with pytest.raises(ConfigurationError) as refused:
            load(write(text), {})

        assert told in str(refused.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
            load(str(tmp_path / "missing.yaml"), {})

    @pytest.mark.parametrize(
        "address",
        ["vault.example.com", "ftp://x", "https://", "https://u:p@x", "https://x:port", "http://x"],
    )
    def test_an_address_must_be_https_without_extras(self, address):
        assert faults(None, {**ENVIRONMENT, "VAULT_ADDR": address})

    @pytest.mark.parametrize(
        "address",
        [
            "https://u:canary@x:port",
            "https://u:a@canary://b@x:port",
            "u:canary@x",
            "u:canary@https://x",
            "https://u:canary@x",
        ],
    )
    def test_a_password_in_an_address_is_not_shown(self, address):
        (fault,) = faults(None, {**ENVIRONMENT, "VAULT_ADDR": address})

        assert "canary" not in fault

    @pytest.mark.parametrize(
        "auth",
        [
            r'{method: kubernetes, role: istiod, tokenFile: "a\0b"}',
            r'{method: token, tokenFile: "a\0b"}',
        ],
    )
    def test_a_nul_in_a_path_is_a_fault(self, write, auth):
        path = write(
            "bundles: [{name: a, source: {vaultKV: {mount: m, path: p}}, output: {directory: /x}}]"
            f"\nvault: {{address: https://x, auth: {auth}}}\n"
        )

        (fault,) = faults(path, {})

        assert fault.startswith("vault.auth.tokenFile: expected ")
        assert "without NUL characters" in fault

    @pytest.mark.parametrize("host", ["127.0.0.1:8200", "localhost", "[::1]:8200", "127.9.9.9"])
    def test_plain_http_to_loopback_is_taken(self, host):
        assert load(None, {**ENVIRONMENT, "VAULT_ADDR": f"http://{host}"})

    def test_a_name_that_only_looks_like_loopback_is_not_taken_for_it(self):
        assert faults(None, {**ENVIRONMENT, "VAULT_ADDR": "http://127.0.0.1.example.com"})

    def test_plain_http_elsewhere_can_be_asked_for_by_name(self):
        environ = {**ENVIRONMENT, "VAULT_ADDR": "http://x", "CERTAGENT_VAULT_PLAIN_HTTP": "true"}

        assert load(None, environ).vault.plain_http

    def test_missing_certificate_files_are_named(self):
        environ = {
            **ENVIRONMENT,
            "VAULT_CACERT": "/missing/ca.pem",
            "CERTAGENT_VAULT_AUTH_METHOD": "cert",
            "CERTAGENT_VAULT_CERT_FILE": "/missing/tls.crt",
            "CERTAGENT_VAULT_KEY_FILE": "/missing/tls.key",
        }

        told = "\n".join(faults(None, environ))

        assert all(f"/missing/{name}" in told for name in ("ca.pem", "tls.crt", "tls.key"))

    def test_files_of_a_pod_are_not_looked_for_elsewhere(self):
        environ = {**ENVIRONMENT, "VAULT_CACERT": "/etc/vault-ca/ca.pem"}

        assert load(None, environ, here=False).vault.ca_file == "/etc/vault-ca/ca.pem"

    def test_the_token_method_needs_a_token(self):
        environ = {**ENVIRONMENT, "CERTAGENT_VAULT_AUTH_METHOD": "token"}
        del environ["CERTAGENT_VAULT_ROLE"], environ["CERTAGENT_VAULT_AUTH_MOUNT"]

        assert "VAULT_TOKEN" in faults(None, environ)[0]

    def test_bundles_may_share_neither_name_nor_directory(self, write):
        bundle = FILE[FILE.index("- name") : FILE.index("refresh:")]

        told = faults(write(FILE.replace(bundle, bundle * 2)), {})

        assert any("is taken by another bundle" in fault for fault in told)
        assert any("another bundle publishes to /etc/istio-ca" in fault for fault in told)

    def test_a_source_must_be_exactly_one(self, write):
        path = write(FILE.replace("{vaultKV:", "{files: {directory: /x}, vaultKV:"))

        assert "expected exactly one of" in faults(path, {})[0]

    def test_a_variable_for_one_bundle_is_refused_where_there_are_two(self, write):
        second = "- {name: b, source: {files: {directory: /x}}, output: {directory: /y}}\n"
        path = write(FILE.replace("refresh:", second + "refresh:"))

        assert "which of the 2 bundles" in faults(path, {"ROOT_CA_DIR": "/z"})[0]

    def test_a_malformed_list_of_bundles_is_a_fault_also_with_variables(self, write):
        assert faults(write("bundles: 3"), {"ROOT_CA_DIR": "/z"})

    @pytest.mark.parametrize("duration", ["0s", "9" * 400 + "d", "400d"])
    def test_durations_are_bounded(self, duration):
        assert faults(None, {**ENVIRONMENT, "CERTAGENT_INTERVAL": duration})


class TestKinds:
    def test_a_ca_is_for_istiod_and_a_certificate_for_a_gateway(self, write):
        config = load(write(MIXED), {})

        ca, ingress, egress = config.bundles
        assert [each.layout for each in config.bundles] == ["istiod", "gateway", "istiod"]
        assert (ca.kind, ingress.kind, egress.usage) == ("ca", "tls", "client")

    def test_the_variables_of_the_ca_mean_the_one_bundle_that_is_one(self, write):
        bundles = MIXED.split("bundles:\n")[1].split("- ")[1:]
        last = "bundles:\n- " + "- ".join([*bundles[1:], bundles[0]])
        environ = {"ROOT_CA_DIR": "/run/ca", "CERTAGENT_SOURCE": "file:/ca"}

        config = load(write(last), environ)

        assert [each.output.directory for each in config.bundles] == ["/in", "/out", "/run/ca"]
        assert config.bundles[2].source.files.directory == "/ca"

    def test_a_fault_of_such_a_variable_is_told_as_its_own(self, write):
        bundles = MIXED.split("bundles:\n")[1].split("- ")[1:]
        last = "bundles:\n- " + "- ".join([*bundles[1:], bundles[0]])

        (fault,) = faults(write(last), {"ROOT_CA_DIR": "/a\0b"})

        assert fault.startswith("ROOT_CA_DIR (bundles[2].output.directory): expected some text")

    def test_a_variable_of_the_ca_is_refused_where_no_bundle_is_one(self, write):
        (fault,) = faults(write(MIXED.replace("kind: ca", "kind: tls")), {"ROOT_CA_DIR": "/run/ca"})

        assert fault.startswith("ROOT_CA_DIR: it means a CA, and no bundle is one")

    def test_what_does_not_go_with_a_kind_is_told_in_one_go(self, write):
        path = write("""
vault: {address: https://vault.example.com, auth: {method: kubernetes, role: a}}
rotation: {istiod: restart}
bundles:
- name: ca
  usage: server
  source: {files: {directory: /a}}
  output: {directory: /ca}
- name: egress
  kind: tls
  usage: client
  source: {vaultKV: {mount: a, path: b, fields: {crls: ca_crl}}}
  output: {directory: /out}
  confirm: {address: "127.0.0.1:8443"}
""")

        assert faults(path, {}) == (
            "bundles[0].usage: only a bundle of kind tls has one",
            "bundles[0].hooks: rotation.istiod: restart needs a hook with `on: roots`",
            "bundles[1].source.vaultKV.fields.crls: a bundle of kind tls has no revocation lists",
            "bundles[1].confirm: nobody serves a client's certificate, so nobody can be asked",
        )


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("500ms", 0.5), ("30s", 30), ("5m", 300), ("24h", 86400), ("7d", 604800), ("1.5h", 5400)],
    )
    def test_durations_are_seconds(self, text, expected):
        assert seconds(text) == expected

    def test_modes_are_octal(self):
        assert permissions("0640") == 0o640


class TestSchema:
    def test_it_is_made_from_the_types_of_the_decoder(self):
        schema = json_schema()

        definitions = schema["$defs"]
        assert set(definitions["Config"]["properties"]) == {
            field.encode_name for field in msgspec.structs.fields(Config)
        }
        assert definitions["BundleConfig"]["additionalProperties"] is False
        json.dumps(schema)

    def test_every_setting_leads_to_a_key_of_the_schema(self):
        definitions = json_schema()["$defs"]

        def properties(reference: dict) -> dict:
            if "enum" in reference:  # the name of a credential, in the place of its settings
                return {}
            if "anyOf" in reference:
                return {k: v for each in reference["anyOf"] for k, v in properties(each).items()}
            return definitions[reference["$ref"].rpartition("/")[2]]["properties"]

        for setting in SETTINGS:
            place = definitions["Config"]["properties"]
            for key in setting.path:
                if key == "bundles[0]":
                    place = properties(place["bundles"]["items"])
                    continue
                assert key in place, setting
                if key != setting.path[-1]:
                    place = properties(place[key])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_keys = st.sampled_from(["vault", "bundles", "refresh", "init", "server", "log", "x"])


class TestAnyInput:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.binary(max_size=200))
    def test_any_bytes_end_in_a_configuration_or_a_typed_error(self, write, data):
        with suppress(ConfigurationError):
            assert isinstance(load(write(data), ENVIRONMENT), Config)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(document=st.dictionaries(_keys, _json, max_size=4))
    def test_any_document_ends_in_a_configuration_or_a_typed_error(self, write, document):
        with suppress(ConfigurationError):
            assert isinstance(load(write(json.dumps(document)), ENVIRONMENT), Config)
