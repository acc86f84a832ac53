"""From files with annotations to overlays: where they stand, what they make up, what is around."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given as for_any
from hypothesis import strategies as st

from certagent.cli.migration import delivery
from certagent.cli.migration.login import Wishes
from certagent.cli.migration.reading import Place, choose, places
from certagent.cli.migration.report import report
from certagent.cli.migration.resources import quantity
from certagent.cli.migration.translation import Migration, migrate
from certagent.errors import CertagentError, ConfigurationError, UsageError
from certagent.kubernetes.istio import Version
from certagent.kubernetes.options import Options
from tests.support.injector import (
    ARTICLES,
    CA,
    PATH,
    TLS,
    annotations,
    deployment,
    pod_template,
    template,
    values,
)

OFF = {"vault.hashicorp.com/agent-inject": "false"}


def only(text: str, name: str | None = None) -> Place:
    return choose(places(text.encode(), "FILE"), name, "FILE")


def migration(text: str, name: str | None = None, **wishes: str) -> Migration:
    return migrate(only(text, name), Wishes(**wishes))


def overlay(text: str, **wishes: str) -> dict:
    return delivery.values(migration(text, **wishes), Options())


def faults(text: str, **wishes: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        overlay(text, **wishes)
    return refused.value.faults


def agent(made: dict) -> dict:
    (found,) = [each for each in made["initContainers"] if each["name"] == "certagent"]
    return found


def variables(made: dict) -> dict[str, str]:
    return {each["name"]: each["value"] for each in agent(made)["env"]}


class TestPlaces:
    @pytest.mark.parametrize(
        ("keys", "nesting"),
        [
            (["podAnnotations"], ()),
            (["mesh", "podAnnotations"], ("mesh",)),
            (["istiod", "pilot", "podAnnotations"], ("istiod", "pilot")),
            ([], ()),
        ],
    )
    def test_values_may_nest_them_anywhere_and_the_overlay_nests_likewise(self, keys, nesting):
        document: object = annotations()
        for key in reversed(keys):
            document = {key: document}

        made = overlay(yaml.safe_dump(document))

        for key in nesting:
            assert list(made) == [key]
            made = made[key]
        assert made["env"]["ROOT_CA_DIR"] == "/vault/secrets"

    @pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps], ids=["yaml", "json"])
    def test_a_deployment_is_known_by_its_pod_template(self, dump):
        place = only(dump(deployment(annotations())))

        assert place.name == "Deployment istiod-1-28"
        assert place.target["namespace"] == "istio-system"

    def test_a_pod_a_list_and_several_documents_are_read(self):
        pod = {"kind": "Pod", **pod_template(annotations())}
        listed = {"kind": "List", "items": [deployment(annotations()), {"kind": "Service"}]}
        text = yaml.safe_dump_all([{"a": 1}, pod, None, listed])

        names = [place.name for place in places(text.encode(), "FILE")]

        assert names == ["Pod (unnamed)", "Deployment istiod-1-28"]

    def test_a_template_of_unknown_kind_is_read_too(self):
        assert only(yaml.safe_dump(pod_template(annotations()))).name == "pod template"

    def test_values_inside_of_an_object_stay_inside_of_it(self):
        release = {
            "apiVersion": "helm.toolkit.fluxcd.io/v2",
            "kind": "HelmRelease",
            "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"a": "b"}},
            "spec": {"interval": "5m", "values": {"podAnnotations": annotations()}},
        }

        place = only(yaml.safe_dump({"kind": "List", "items": [release]}))
        made = delivery.values(migrate(place, Wishes()), Options())

        assert place.name == "HelmRelease istiod spec.values.podAnnotations"
        assert list(made) == ["apiVersion", "kind", "metadata", "spec"]
        assert made["metadata"] == {"name": "istiod", "namespace": "istio-system"}
        assert list(made["spec"]) == ["values"]

    def test_an_istio_operators_values_stay_under_pilot(self):
        operator = {
            "apiVersion": "install.istio.io/v1alpha1",
            "kind": "IstioOperator",
            "spec": {"values": {"pilot": {"podAnnotations": annotations()}}},
        }

        made = overlay(yaml.safe_dump(operator))

        assert made["kind"] == "IstioOperator"
        assert list(made["spec"]["values"]) == ["pilot"]
        assert "env" in made["spec"]["values"]["pilot"]
        assert "top level" not in report(migration(yaml.safe_dump(operator)))

    @pytest.mark.parametrize("key", ["pods", "k8s"])
    def test_where_no_overlay_reaches_is_told(self, key):
        inner = {"podAnnotations": annotations()}
        text = yaml.safe_dump({key: inner if key == "k8s" else [inner]})

        with pytest.raises(ConfigurationError, match="is where no overlay reaches"):
            only(text)

    def test_a_template_that_is_elsewhere_than_a_deployments_is_not_patched(self):
        job = {"spec": {"template": pod_template(annotations())}}
        text = yaml.safe_dump({"kind": "CronJob", "spec": {"jobTemplate": job}})

        with pytest.raises(ConfigurationError, match="where no Deployment has it"):
            only(text)

    def test_values_of_the_old_gateway_charts_become_a_patch_alone(self):
        inner = {"podAnnotations": annotations(files=TLS)}
        made = migration(yaml.safe_dump({"gateways": {"istio-ingressgateway": inner}}))

        with pytest.raises(UsageError, match="old gateway charts, which take no initContainers"):
            delivery.values(made, Options())
        assert delivery.patch(made, Options(), name="x", namespace="y")["kind"] == "Deployment"
        assert delivery.values(migration(yaml.safe_dump({"gateways": inner})), Options()), (
            "a subchart that is called so"
        )

    def test_of_several_places_one_is_chosen(self):
        text = yaml.safe_dump({name: {"podAnnotations": annotations()} for name in ("a", "b")})

        with pytest.raises(UsageError, match=r"at 2 places: 'a\.podAnnotations', 'b\.podAnn"):
            only(text)
        with pytest.raises(UsageError, match=r"has no such place: 'c'\.\nIt has: a\.pod"):
            only(text, "c")
        assert only(text, "b.podAnnotations").nesting == ("b",)

    def test_places_of_one_name_cannot_be_told_apart(self):
        text = yaml.safe_dump_all([{"podAnnotations": annotations()}] * 2)

        with pytest.raises(UsageError, match="more than one such place: 'podAnnotations'"):
            only(text, "podAnnotations")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "has no annotation vault.hashicorp.com/"),
            ("podAnnotations: {a: b}", "has no annotation vault.hashicorp.com/"),
            ("a: b: c", "FILE is not valid YAML at line 1, column 5: mapping values"),
            ("a: {", "FILE is not valid YAML"),
            ("\x00", "FILE is not valid YAML"),
            ('{{ template "x" }}', "FILE is not valid YAML"),
            ("a: 1\na: 2", "the key 'a' is given twice"),
            ("x: &x [*x]", "it is too large with its aliases written out"),
            ("[" * 500, "FILE is not valid YAML"),
            ("# " + "x" * (1 << 20), "FILE is larger than 1048576 bytes"),
        ],
    )
    def test_what_holds_none_is_told_so(self, text, why):
        with pytest.raises(ConfigurationError) as refused:
            only(text)

        assert why in str(refused.value)

    def test_aliases_without_end_are_not_followed(self):
        levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]

        with pytest.raises(ConfigurationError, match="too large with its aliases"):
            only("\n".join(levels))

    def test_annotations_of_the_deployment_itself_are_no_pods(self):
        made = deployment({})
        made["metadata"]["annotations"] = annotations()

        with pytest.raises(
            ConfigurationError, match="Deployment istiod-1-28 has the annotations on"
        ):
            only(yaml.safe_dump(made))

    def test_values_for_another_object_do_not_reach_the_pod(self):
        with pytest.raises(ConfigurationError, match=r"pilot\.serviceAccountAnnotations does not"):
            only(yaml.safe_dump({"pilot": {"serviceAccountAnnotations": annotations()}}))


class TestBundles:
    def test_the_set_comes_from_one_secret(self):
        given = annotations({"agent-inject-secret-ca-key.pem": "kv/istiod/key"})
        given["vault.hashicorp.com/agent-inject-template-ca-key.pem"] = template(
            "ca_key", "kv/istiod/key"
        )

        (fault,) = faults(values(given))

        assert "one set needs one secret" in fault
        assert "ca-key.pem from kv/istiod/key, ca-cert.pem from kv/istiod/certs" in fault

    def test_a_template_and_its_secret_name_one_path(self):
        given = annotations({"agent-inject-secret-ca-key.pem": "kv/other"})

        assert faults(values(given)) == (
            (
                "agent-inject-template-ca-key.pem: it reads 'kv/istiod/certs', and"
                " agent-inject-secret-ca-key.pem says 'kv/other'"
            ),
        )

    @pytest.mark.parametrize("said", ["/kv/istiod/certs", "kv/data/istiod/certs", ""])
    def test_a_path_may_be_written_in_several_ways(self, said):
        given = annotations({"agent-inject-secret-ca-key.pem": said})

        assert overlay(values(given)) == overlay(values(annotations()))

    @pytest.mark.parametrize(
        ("path", "field", "source"),
        [
            ("kv/istiod/certs", ".Data.x", ("kv", "istiod/certs")),
            ("kv/data/istiod/certs", ".Data.data.x", ("kv", "istiod/certs")),
            ("kv/istiod/certs", ".Data.data.x", ("kv", "istiod/certs")),
            ("team/kv/data/istiod/certs", ".Data.data.x", ("team/kv", "istiod/certs")),
            ("kv/istiod/data", ".Data.x", ("kv", "istiod/data")),
        ],
    )
    def test_mount_and_path_are_told_apart(self, path, field, source):
        changes = {}
        for file, name in CA.items():
            changes[f"agent-inject-secret-{file}"] = path
            value = field.replace("x", name)
            text = f'{{{{ with secret "{path}" }}}}{{{{ {value} }}}}{{{{ end }}}}'
            changes[f"agent-inject-template-{file}"] = text

        (bundle,) = migration(values(annotations(changes))).document["bundles"]

        assert bundle["source"]["vaultKV"] == {"mount": source[0], "path": source[1]}

    @pytest.mark.parametrize("path", ["team/kv/certs", "team/kv/data/certs"])
    def test_a_mount_of_several_names_may_be_given_by_hand(self, path):
        changes = {}
        for file, name in CA.items():
            changes[f"agent-inject-secret-{file}"] = path
            changes[f"agent-inject-template-{file}"] = template(f"data.{name}", path)

        made = migration(values(annotations(changes)), mount="team/kv")

        assert made.document["bundles"][0]["source"]["vaultKV"] == {
            "mount": "team/kv",
            "path": "certs",
        }

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("kv", "'kv' is not a mount and a path below it"),
            ("kv//certs", "'kv//certs' is not a mount and a path below it"),
            ("kv/certs?version=3", "kv/certs?version=3 pins a version"),
            ("kv/data/certs", "kv/data/certs is a path of KV v2, where .Data.ca_key is nothing"),
        ],
    )
    def test_a_path_that_leads_nowhere_is_a_fault(self, path, why):
        changes = {}
        for file, name in CA.items():
            changes[f"agent-inject-secret-{file}"] = path
            changes[f"agent-inject-template-{file}"] = template(name, path)

        (fault,) = faults(values(annotations(changes)))

        assert why in fault

    @pytest.mark.parametrize("slash", ["/", "//", "./"])
    def test_a_files_path_is_always_below_the_volume(self, slash):
        changes = {f"agent-inject-file-{file}": f"{slash}{file}" for file in CA}

        (bundle,) = migration(values(annotations(changes))).bundles

        assert bundle.directory == "/vault/secrets"

    def test_one_form_of_kv_for_all(self):
        text = template("data.ca_key")

        (fault,) = faults(values(annotations({"agent-inject-template-ca-key.pem": text})))

        assert "some templates have the form of KV v1" in fault

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            (
                {"agent-inject-secret-cert-chain.pem": None}
                | {"agent-inject-template-cert-chain.pem": None},
                "/vault/secrets: no annotation writes cert-chain.pem",
            ),
            (
                {"agent-inject-secret-db": "kv/istiod/certs"}
                | {"agent-inject-template-db": template("db")},
                "/vault/secrets: db is no part of a CA",
            ),
            (
                {"agent-inject-secret-tls.crt": "kv/istiod/certs"}
                | {"agent-inject-template-tls.crt": template("crt")},
                "/vault/secrets: it has files of a CA and of a gateway",
            ),
            (
                {"agent-inject-secret-k": "kv/istiod/certs", "agent-inject-file-k": "ca-key.pem"}
                | {"agent-inject-template-k": template("k")},
                "/vault/secrets: two secrets write ca-key.pem",
            ),
            (
                {"agent-inject-template-x": template("x")},
                "agent-inject-template-x: there is no agent-inject-secret-x",
            ),
            (
                {"agent-inject-template-ca-key.pem": None},
                "agent-inject-secret-ca-key.pem: without a template, the file has every field",
            ),
            (
                {"agent-inject-template-ca-key.pem": "{{ key }}"},
                (
                    "agent-inject-template-ca-key.pem: not convertible, `key` does not print a"
                    " field as it is: '{{ key }}'"
                ),
            ),
            (
                {"secret-volume-path": "/etc/cacerts"},
                "bundles[0].output.directory: /etc/cacerts meets",
            ),
        ],
    )
    def test_what_makes_up_no_set_is_refused_and_named(self, changes, why):
        (fault, *_) = faults(values(annotations(changes)))

        assert fault.startswith(why)

    def test_a_long_template_is_shown_in_part(self):
        text = "{{ key }}" + "x" * 1000

        (fault,) = faults(values(annotations({"agent-inject-template-ca-key.pem": text})))

        assert fault.endswith("x'…")
        assert len(fault) < 500

    def test_without_any_secret_there_is_nothing_to_publish(self):
        (fault,) = faults(values(annotations(files={})))

        assert "there is nothing to publish" in fault

    def test_files_of_one_set_in_two_directories_are_no_set(self):
        found = faults(values(annotations({"secret-volume-path-ca-key.pem": "/vault/secrets/key"})))

        assert [fault.partition(":")[0] for fault in found] == [
            "/vault/secrets/key",
            "/vault/secrets",
            "/vault/secrets/key",
        ]
        assert (
            found[2] == "/vault/secrets/key: it lies in /vault/secrets, which has files of its own"
        )

    def test_two_cas_are_one_too_many(self):
        changes: dict[str, object] = {}
        for file, field in CA.items():
            changes[f"agent-inject-secret-2{file}"] = "kv/istiod/certs"
            changes[f"agent-inject-template-2{file}"] = template(field)
            changes[f"agent-inject-file-2{file}"] = file
            changes[f"secret-volume-path-2{file}"] = "/etc/second"

        (fault,) = faults(values(annotations(changes)))

        assert fault == "/vault/secrets, /etc/second: istiod reads one CA, and these are 2"


class TestOverlay:
    def test_the_articles_values_need_nothing_but_variables(self):
        made = overlay(
            (ARTICLES / "cluster1-values.yaml").read_text(), address="https://vault:8200"
        )

        assert made["pilot"] == {"podAnnotations": OFF}
        assert variables(made) == {
            "VAULT_ADDR": "https://vault:8200",
            "ROOT_CA_DIR": "/vault/secrets",
            "ISTIO_MULTIROOT_MESH": "true",
            "CERTAGENT_SOURCE": "vault:kubernetes-cluster1-secrets/istiod-service/certs",
            "CERTAGENT_VAULT_AUTH_MOUNT": "kubernetes-cluster1",
            "CERTAGENT_VAULT_ROLE": "istiod",
        }
        assert [each["name"] for each in made["volumes"]] == ["istio-ca"]

    def test_the_injector_is_switched_off(self):
        assert overlay(values(annotations()))["podAnnotations"] == OFF

    def test_what_variables_cannot_say_is_in_a_file(self):
        text = values(annotations({"client-timeout": "20s"}))

        made = overlay(text)

        assert migration(text).environ == {}
        assert agent(made)["args"] == ["run", "--config", "/etc/certagent-config/certagent.yaml"]

    def test_a_token_for_vault_alone_is_projected_where_it_is_asked_for(self):
        made = overlay(values(annotations()), audience="vault")

        token = {"path": "vault", "audience": "vault", "expirationSeconds": 3600}
        assert made["volumes"][1]["projected"]["sources"] == [{"serviceAccountToken": token}]
        assert variables(made)["CERTAGENT_VAULT_TOKEN_FILE"] == "/var/run/secrets/vault/vault"

    @pytest.mark.parametrize(
        ("source", "audience"),
        [
            ({"serviceAccountToken": {"path": "token", "audience": "mesh"}}, "mesh"),
            ({"serviceAccountToken": {"path": "token"}}, ""),
            ({"configMap": {"name": "x"}}, ""),
        ],
    )
    def test_the_audience_of_a_token_volume_is_taken_over(self, source, audience):
        given = annotations({"agent-service-account-token-volume-name": "vault-sa"})
        volume = {"name": "vault-sa", "projected": {"sources": [source]}}

        assert migration(values(given, volumes=[volume])).audience == audience

    def test_a_token_volume_is_a_projected_one(self):
        given = annotations({"agent-service-account-token-volume-name": "vault-sa"})

        assert migration(values(given, volumes=[{"name": "vault-sa"}])).audience == ""

    def test_pre_populate_only_publishes_once(self):
        made = overlay(values(annotations({"agent-pre-populate-only": "true"})))

        assert agent(made)["args"] == ["init"]
        assert not agent(made).keys() & {"restartPolicy", "startupProbe", "livenessProbe"}

    @pytest.mark.parametrize(
        ("first", "names"), [("true", ["certagent", "x"]), ("", ["x", "certagent"])]
    )
    def test_lists_go_on_with_what_stands_beside_the_annotations(self, first, names):
        mount = {"name": "y", "mountPath": "/y"}
        text = values(
            annotations({"agent-init-first": first}),
            initContainers=[{"name": "x", "image": "x"}],
            volumes=[{"name": "y", "emptyDir": {}}],
            volumeMounts=[mount],
        )

        made = overlay(text)

        assert [each["name"] for each in made["initContainers"]] == names
        assert [each["name"] for each in made["volumes"]] == ["istio-ca", "y"]
        assert made["volumeMounts"][1] == mount

    @pytest.mark.parametrize(
        ("beside", "why"),
        [
            ({"volumes": [{"name": "istio-ca"}]}, "a volume is named istio-ca already"),
            ({"initContainers": [{"name": "certagent"}]}, "a container is named certagent already"),
            (
                {"volumeMounts": [{"name": "x", "mountPath": "/vault/secrets/"}]},
                "another volume is mounted at /vault/secrets",
            ),
            ({"env": {"ROOT_CA_DIR": "/etc/ca"}}, "the files go to /vault/secrets, where istiod"),
        ],
    )
    def test_a_name_or_a_path_that_is_taken_is_a_fault(self, beside, why):
        (fault,) = faults(values(annotations(), **beside))

        assert why in fault

    def test_what_only_yaml_can_say_is_not_copied(self):
        text = values(annotations()) + "volumes: [{name: x, y: !!binary aGk=}]\n"

        (fault,) = faults(text)

        assert fault.startswith("volumes: it has what only YAML can say")

    def test_a_gateways_certificates_are_published_each_to_its_directory(self):
        changes: dict[str, object] = {}
        for shop in ("shop", "Partners"):
            for file, field in {**TLS, "ca.crt": "ca_cert"}.items():
                path = f"kv/{shop}"
                changes[f"agent-inject-secret-{shop}-{file}"] = path
                changes[f"agent-inject-template-{shop}-{file}"] = template(field, path)
                changes[f"agent-inject-file-{shop}-{file}"] = file
                changes[f"secret-volume-path-{shop}-{file}"] = f"/etc/tls/{shop}"

        made = migration(values(annotations(changes, files={})))

        assert made.document["bundles"][1] == {
            "name": "partners",
            "kind": "tls",
            "source": {
                "vaultKV": {"mount": "kv", "path": "Partners", "fields": {"roots": "ca_cert"}}
            },
            "output": {"directory": "/etc/tls/Partners"},
        }
        mounts = delivery.values(made, Options())["volumeMounts"]
        assert mounts == [{"name": "gateway-tls", "mountPath": "/etc/tls", "readOnly": True}]
        assert "/etc/tls/shop/tls.crt is /etc/tls/shop/current/tls.crt now" in report(made)

    def test_bundles_of_one_name_are_told_apart(self):
        changes: dict[str, object] = {}
        for number in ("1", "2"):
            for file, field in TLS.items():
                changes[f"agent-inject-secret-{number}-{file}"] = PATH
                changes[f"agent-inject-template-{number}-{file}"] = template(field)
                changes[f"agent-inject-file-{number}-{file}"] = f"{number}/tls/{file}"

        made = migration(values(annotations(changes, files={})))

        assert [bundle.name for bundle in made.config.bundles] == ["tls", "tls-2"]

    def test_a_directory_of_its_own_names_the_one_certificate(self):
        made = migration(values(annotations(files=TLS)))

        assert [bundle.name for bundle in made.config.bundles] == ["gateway"]

    def test_a_pod_is_istiods_or_a_gateways(self):
        changes: dict[str, object] = {"secret-volume-path-tls.key": "/etc/tls"}
        for file, field in TLS.items():
            changes[f"agent-inject-secret-{file}"] = PATH
            changes[f"agent-inject-template-{file}"] = template(field)
            changes[f"secret-volume-path-{file}"] = "/etc/tls"

        (fault,) = faults(values(annotations(changes)))

        assert fault == "a pod has the CA of istiod or a gateway's certificates, and these are both"

    def test_an_istiod_that_takes_no_roots_stays_so(self):
        made = overlay(values(annotations(), env={"ISTIO_MULTIROOT_MESH": False}))

        assert made["env"] == {"ROOT_CA_DIR": "/vault/secrets"}

    def test_an_istio_that_cannot_is_told(self):
        with pytest.raises(UsageError, match=r"Istio 1\.23 takes no initContainers"):
            delivery.values(migration(values(annotations())), Options(istio=Version(1, 23)))

    def test_files_that_nothing_mounts_are_a_fault_of_the_pod(self):
        (fault,) = faults(values(annotations({"ca-cert": "/etc/ssl/vault.pem"})))

        assert (
            "vault.caFile: name the Secret that is to be mounted there: --secret /etc/ssl" in fault
        )


class TestPilot:
    """A chart's values in the IstioOperator's form, which istiod's chart does not read."""

    def values(self, top: dict | None = None, **under: object) -> str:
        return yaml.safe_dump({"pilot": {"podAnnotations": annotations(), **under}, **(top or {})})

    def test_the_overlay_is_at_the_top_level_and_the_injector_off_at_both(self):
        made = overlay(self.values())

        keys = {"env", "volumes", "volumeMounts", "initContainers", "podAnnotations"}
        assert made.keys() == {*keys, "pilot"}
        assert made["podAnnotations"] == OFF
        assert made["pilot"] == {"podAnnotations": OFF}

    def test_what_the_overlay_touches_comes_along(self):
        volume = {"name": "y", "emptyDir": {}}
        env = {"ISTIO_MULTIROOT_MESH": "false", "X": "1", "NONE": None}
        text = self.values(
            podAnnotations={**annotations(), "team": "mesh"}, volumes=[volume], env=env
        )

        made = overlay(text)

        assert volume in made["volumes"]
        assert made["podAnnotations"] == {"team": "mesh", **OFF}
        del env["NONE"]  # Helm takes it out
        assert made["env"] == {**env, "ROOT_CA_DIR": "/vault/secrets"}
        assert "ISTIO_MULTIROOT_MESH" not in variables(made)  # the agent stages no roots either

    def test_the_top_level_counts_where_both_say_something(self):
        top = {"volumes": [{"name": "top"}], "env": {"X": "top"}, "volumeMounts": None}
        mount = {"name": "top", "mountPath": "/x"}
        under = {"volumes": [{"name": "under"}], "env": {"X": "under"}, "volumeMounts": [mount]}
        text = self.values(top, **under)

        made = overlay(text)

        assert [each["name"] for each in made["volumes"]] == ["istio-ca", "top"]
        assert made["volumeMounts"][1] == mount
        assert made["env"]["X"] == "top"
        assert "  - env, volumes: both at the top level and under pilot; the top" in report(
            migration(text)
        )

    def test_maps_without_a_common_key_are_not_at_odds(self):
        text = self.values({"env": {"X": "1"}}, env={"Y": "2"})

        assert overlay(text)["env"].items() >= {"X": "1", "Y": "2"}.items()
        assert "both at the top level" not in report(migration(text))

    def test_a_directory_at_the_top_level_is_the_one_that_istiod_reads(self):
        (fault,) = faults(
            self.values({"env": {"ROOT_CA_DIR": "/etc/ca"}}, env={"ROOT_CA_DIR": "/vault/secrets"})
        )

        assert "the files go to /vault/secrets, where istiod reads /etc/ca" in fault

    def test_annotations_at_both_are_those_of_the_top_level(self):
        text = self.values({"podAnnotations": annotations(role="top")})

        made = overlay(text)

        assert variables(made)["CERTAGENT_VAULT_ROLE"] == "top"
        assert "  - podAnnotations: both at the top level and under pilot" in report(
            migration(text)
        )

    def test_the_report_says_so_and_names_what_stays(self):
        told = report(migration(self.values(autoscaleMin=2, resources={}, env={})))

        assert "the overlay is at the top level, where istiod's chart reads it (1.24 and" in told
        assert "  - move to the top level what else is under pilot: autoscaleMin, resources" in told

    def test_values_at_the_top_level_are_not_said_to_be_moved(self):
        assert "under pilot" not in report(migration(values(annotations(), pilot={"x": 1})))


class TestResources:
    def test_memory_is_never_less_than_what_was_measured(self):
        given = annotations({"agent-limits-mem": "64Mi", "agent-requests-mem": "32Mi"})

        assert agent(overlay(values(given)))["resources"] == {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"memory": "128Mi"},
        }

    def test_no_request_is_above_its_limit(self):
        given = annotations(
            {"agent-requests-mem": "1Gi", "agent-limits-cpu": "50m", "agent-requests-cpu": "1"}
        )

        assert agent(overlay(values(given)))["resources"] == {
            "requests": {"cpu": "1", "memory": "1Gi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        }

    def test_quantities_are_compared_as_kubernetes_does(self):
        texts = ["1m", "0.5", "1", "1k", "1Ki", "1M", "1Mi", "1G", "1Gi", "1T", "1Ti"]

        assert [quantity(text) for text in texts] == sorted(map(quantity, texts))


class TestPatch:
    def patch(self, document: dict, **options: object) -> dict:
        made = migration(yaml.safe_dump(document))
        return delivery.patch(made, Options(**options), name="istiod", namespace="istio-system")

    def test_a_deployments_overlay_is_a_patch_that_switches_the_injector_off(self):
        made = self.patch(deployment(annotations()))

        assert made["kind"] == "Deployment"
        assert made["spec"]["template"]["metadata"]["annotations"] == {
            "vault.hashicorp.com/agent-inject": "false"
        }
        assert agent(made["spec"]["template"]["spec"])["args"] == ["run"]

    def test_another_kind_of_workload_stays_what_it_is(self):
        made = self.patch(deployment(annotations()) | {"kind": "DaemonSet"})

        assert made["kind"] == "DaemonSet"

    def test_a_running_pods_injected_volumes_clash_with_nothing(self):
        pod = {"kind": "Pod", **pod_template(annotations({"agent-inject-status": "injected"}))}
        pod["spec"]["containers"][0]["volumeMounts"] = [
            {"name": "vault-secrets", "mountPath": "/vault/secrets"},
        ]
        pod["spec"]["containers"].append({"name": "vault-agent", "volumeMounts": "none"})

        assert self.patch(pod)["kind"] == "Deployment"

    def test_a_path_that_another_volume_has_is_a_fault(self):
        made = deployment(annotations())
        container = made["spec"]["template"]["spec"]["containers"][0]
        container["volumeMounts"] = [{"name": "x", "mountPath": "/vault/secrets"}]

        with pytest.raises(ConfigurationError, match="Deployment istiod-1-28: another volume"):
            self.patch(made)

    def test_the_variables_of_istiods_container_count(self):
        made = deployment(annotations())
        made["spec"]["template"]["spec"]["containers"] = [
            {"name": "proxy"},
            {"name": "x", "env": [{"name": "A", "value": "b"}]},
            {"name": "discovery", "env": [{"name": "ROOT_CA_DIR", "value": "/etc/ca"}]},
        ]

        with pytest.raises(ConfigurationError, match="where istiod reads /etc/ca"):
            self.patch(made)

    def test_before_native_sidecars_once_means_no_second_container(self):
        made = self.patch(
            deployment(annotations({"agent-pre-populate-only": "true"})),
            kubernetes=Version(1, 28),
        )

        spec = made["spec"]["template"]["spec"]
        assert [each["name"] for each in spec["containers"]] == ["discovery"]
        assert [each["args"] for each in spec["initContainers"]] == [["init"]]

    def test_a_deployment_without_the_reader_is_not_its_pod(self):
        made = deployment(annotations())
        made["spec"]["template"]["spec"]["containers"][0]["name"] = "app"

        with pytest.raises(ConfigurationError, match="it has no container discovery"):
            self.patch(made)


class TestReport:
    def test_each_row_is_told_once_with_its_fate(self):
        told = report(migration(values(annotations({"go-max-procs": "2"}))))

        assert told.startswith("podAnnotations: 14 annotations\n")
        assert (
            "  agent-inject-template-NAME (4)  mapped      the field that holds the part\n" in told
        )
        assert "  go-max-procs                    not needed  no Go runtime\n" in told

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"agent-inject": None}, "the injector has left this pod alone until now"),
            ({"agent-pre-populate-only": "true"}, "as before, nothing is fetched after the start"),
            ({}, "a new version is published within 30s, from KV v1 too"),
            ({}, "KV v1 keeps no history"),
            ({}, "it logs in with the pod's own token, as vault-agent does"),
            ({}, "ROOT_CA_DIR was not in the file; the overlay sets it to /vault/secrets"),
            ({}, "ISTIO_MULTIROOT_MESH is true: istiod takes new roots while it runs"),
            ({}, "after the values that have the annotations"),
            (
                {},
                "with the same files, has a container certagent: charts before 1.24",
            ),
            ({"client-timeout": "60s"}, "a request may last 60s, as client-timeout says"),
            ({"client-timeout": "5s"}, "apply the ConfigMap"),
        ],
    )
    def test_what_changes_and_what_is_to_do_is_told(self, changes, told):
        assert told in report(migration(values(annotations(changes))))

    def test_kv_v2_is_history_enough(self):
        changes = {f"agent-inject-template-{file}": template(f"data.{CA[file]}") for file in CA}

        assert "keeps no history" not in report(migration(values(annotations(changes))))

    def test_an_audience_is_for_the_role_to_ask_for(self):
        told = report(migration(values(annotations()), audience="vault"))

        assert "a role of its own that asks for audience vault" in told
        assert "the pod's own token" not in told

    def test_a_patch_is_applied(self):
        assert "apply the patch" in report(migration(yaml.safe_dump(deployment(annotations()))))

    def test_a_patch_for_values_is_no_overlay_for_helm(self):
        told = report(migration(values(annotations())), is_patch=True)

        assert "apply the patch" in told
        assert "see --name, --namespace" in told
        assert "to helm" not in told

    @pytest.mark.parametrize(
        ("is_patch", "told", "untold"),
        [(False, "nothing is fetched after the start", "30s"), (True, "within 30s", "nothing is")],
    )
    def test_before_native_sidecars_istiods_chart_has_no_agent_that_stays(
        self, is_patch, told, untold
    ):
        old = Options(kubernetes=Version(1, 28))

        said = report(migration(values(annotations())), old, is_patch=is_patch)

        assert told in said
        assert untold not in said
        assert ("kubectl exec" in said) == is_patch

    def test_containers_that_have_the_files_no_longer_are_named(self):
        changes = {"agent-inject-containers": "discovery, tell"}

        told = report(migration(values(annotations(changes))))

        assert "  - tell had the files too" in told


TEXTS = st.text(max_size=8) | st.sampled_from(["true", "kv/istiod/certs", "/vault/tls/x", "30s"])
NAMES = st.sampled_from(
    [
        *(name.removeprefix("vault.hashicorp.com/") for name in annotations()),
        *("secret-volume-path", "preserve-secret-case", "agent-inject-file-ca-key.pem"),
        *("agent-requests-mem", "client-timeout", "auth-type", "auth-config-role", "ca-cert"),
        *("agent-template-left-delim-ca-key.pem", "tls-secret", "namespace", "proxy-address"),
    ]
)


@for_any(st.dictionaries(NAMES, TEXTS | st.none() | st.booleans(), max_size=4))
def test_any_values_become_an_overlay_or_an_error_that_is_told(changes):
    try:
        made = migration(values(annotations(changes)))
        text = yaml.safe_dump(delivery.values(made, Options()))
    except CertagentError:
        return
    assert "certagent" in text
    assert report(made)


@for_any(st.binary(max_size=60) | st.text("{}[]:,-&*!|>#'\"\n ab", max_size=60).map(str.encode))
def test_no_bytes_do_anything_but_hold_no_annotations(data):
    with pytest.raises(ConfigurationError):
        places(data, "FILE")
