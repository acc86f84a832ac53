"""Bundles of kind tls, from a real OpenBao and from directories, by the real command."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.support.gateways import Gateways
from tests.support.material import (
    CLIENT,
    SERVER,
    fields,
    make_leaf,
    make_root,
    pem,
    tls_fields,
    tls_files,
)

ROOT = make_root()
ISSUER = ROOT.intermediate("gateways", dns=())
CLIENTS = make_root(subject="CN=Clients")
GOOD = make_leaf(ISSUER, roots=(CLIENTS,))


@pytest.fixture
def gateways(openbao, tmp_path):
    return Gateways(openbao, openbao.kv(2), tmp_path)


def leaf(**knobs):
    return make_leaf(ISSUER, **knobs)


def directory(path, raw):
    path.mkdir()
    for name, data in tls_files(raw).items():
        (path / name).write_bytes(data)
    return path


def kubernetes(values: dict[str, bytes]) -> str:
    encoded = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return json.dumps({"kind": "Secret", "type": "kubernetes.io/tls", "data": encoded})


class TestPublication:
    def test_init_publishes_what_check_and_status_find_good(self, gateways, tmp_path):
        gateways.bundle("ingress")
        gateways.put("ingress", GOOD.raw())

        assert gateways.verb("init", "--config", gateways.file).code == 0

        assert gateways.current("ingress") == tls_files(GOOD.raw())
        checked = gateways.verb("check", tmp_path / "ingress", "--kind", "tls")
        assert checked.code == 0
        assert "a gateway would take this set" in checked.stdout
        assert "[tls.crt]" in checked.stdout
        assert "[ca.crt]" in checked.stdout
        for place in (("--config", gateways.file), (tmp_path / "ingress",)):
            shown = gateways.verb("status", *place)
            assert shown.code == 0, shown.stdout
            assert "version  1" in shown.stdout

    def test_a_renewed_certificate_is_published_and_a_refused_one_leaves_it(self, gateways):
        gateways.bundle("ingress")
        gateways.put("ingress", leaf().raw())
        renewed = leaf()
        with gateways.run() as agent:
            agent.until(lambda: gateways.served("ingress"))
            gateways.put("ingress", renewed.raw(renewed))
            agent.until(lambda: gateways.served("ingress") == renewed.pem)

            gateways.put("ingress", leaf(dns=()).raw())

            agent.until(lambda: agent.logged("version 3 refused", code="san-missing"))
            assert gateways.served("ingress") == renewed.pem
            # It is logged first, and told in metrics at the end of the pass.
            refused = partial(gateways.metric, "certagent_refused_total", bundle="ingress")
            assert agent.until(lambda: refused(code="san-missing")) == 1

    def test_a_chain_out_of_order_is_published_in_order_and_reported(self, gateways):
        made = leaf()
        gateways.bundle("ingress")
        gateways.put("ingress", made.raw(ISSUER, made))

        done = gateways.verb("init", "--config", gateways.file, CERTAGENT_LOG_FORMAT="json")

        assert gateways.served("ingress") == pem(made, ISSUER)
        assert "chain-repaired" in [each.get("code") for each in done.log]

    def test_a_version_that_is_not_valid_yet_waits_for_its_time(self, gateways):
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
        gateways.bundle("ingress")
        old, new = leaf(), leaf(not_before=soon)
        gateways.put("ingress", old.raw(old))
        gateways.put("ingress", new.raw(new))
        with gateways.run() as agent:
            agent.until(lambda: gateways.served("ingress") == old.pem)
            agent.until(lambda: gateways.served("ingress") == new.pem)
            assert datetime.now(UTC) >= soon

    def test_a_version_that_was_deleted_does_not_bring_the_one_before_back(self, gateways):
        old, new = leaf(), leaf()
        gateways.bundle("ingress")
        gateways.put("ingress", old.raw(old))
        gateways.put("ingress", new.raw(new))
        with gateways.run() as agent:
            agent.until(lambda: gateways.served("ingress") == new.pem)
            gateways.openbao.delete(gateways.mount, "ingress", 2)
            agent.until(lambda: agent.logged("was deleted", fault="SecretNotFound"))
            assert gateways.served("ingress") == new.pem
        assert gateways.verb("init", "--config", gateways.file, "--deadline", "1s").code == 66
        assert gateways.served("ingress") == new.pem

    def test_each_link_s_expiry_is_a_metric(self, gateways):
        gateways.bundle("ingress")
        gateways.put("ingress", GOOD.raw())
        with gateways.run() as agent:
            agent.until(lambda: gateways.get("/readyz")[0] == 200)

            for part in ("certificate", "chain", "roots"):
                assert gateways.metric(
                    "certagent_not_after_timestamp_seconds", bundle="ingress", part=part
                )

    def test_a_clients_certificate_is_judged_as_one(self, gateways, tmp_path):
        egress = make_leaf(ISSUER, eku=(CLIENT,), roots=(ROOT,))
        gateways.bundle("egress", usage="client")
        gateways.put("egress", egress.raw())

        assert gateways.verb("init", "--config", gateways.file).code == 0
        assert gateways.verb("status", tmp_path / "egress").code == 0
        words = ("check", tmp_path / "egress", "--kind", "tls")
        assert gateways.verb(*words, "--usage", "client").code == 0
        assert gateways.verb(*words).code == 65

    @pytest.mark.parametrize(
        "names", [{"chain": "tls_chain"}, {"certificate": "crt", "roots": "ca"}]
    )
    def test_fields_have_the_names_that_they_are_given(self, gateways, names):
        source = {"vaultKV": {"mount": gateways.mount, "path": "ingress", "fields": names}}
        gateways.bundle("ingress", source=source)
        made = leaf(roots=(CLIENTS,))
        stored = tls_fields(made.raw(made))
        stored["tls_chain"] = ISSUER.pem.decode()
        for part, name in names.items():
            if part != "chain":
                stored[name] = stored.pop({"certificate": "tls_cert", "roots": "ca_cert"}[part])
        gateways.openbao.put(gateways.mount, "ingress", stored)

        assert gateways.verb("init", "--config", gateways.file).code == 0

        assert gateways.served("ingress") == pem(made, *([ISSUER] if "chain" in names else []))


class TestDirectories:
    def test_a_secret_of_cert_manager_is_followed(self, gateways, tmp_path):
        mounted = tmp_path / "mounted"
        first, second = leaf(), leaf()
        _mount(mounted, tls_files(first.raw()) | {"ca.crt": b""}, "..1")
        gateways.bundle("ingress", source={"files": {"directory": str(mounted)}})
        with gateways.run() as agent:
            agent.until(lambda: gateways.served("ingress") == pem(*first.sent))
            assert set(gateways.current("ingress")) == {"tls.crt", "tls.key"}

            _mount(mounted, tls_files(second.raw()) | {"ca.crt": b""}, "..2")

            agent.until(lambda: gateways.served("ingress") == pem(*second.sent))

    def test_what_an_agent_publishes_is_a_source_for_another(self, gateways, tmp_path):
        gateways.bundle("ingress", source={"files": {"directory": str(tmp_path / "stored")}})
        directory(tmp_path / "stored", GOOD.raw())
        gateways.verb("init", "--config", gateways.file)

        again = {"files": {"directory": str(tmp_path / "ingress")}}
        gateways.bundles.clear()
        gateways.bundle("copy", source=again)

        assert gateways.verb("init", "--config", gateways.file).code == 0
        assert gateways.current("copy") == tls_files(GOOD.raw())


def _mount(path, files, version):
    """As the kubelet lays a Secret out, and swaps it."""
    (path / version).mkdir(parents=True)
    for name, data in files.items():
        (path / version / name).write_bytes(data)
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"..data/{name}")
    (path / "..new").symlink_to(version)
    (path / "..new").rename(path / "..data")


class TestSeveral:
    def test_one_that_fails_neither_delays_nor_hides_the_others(self, gateways, tmp_path):
        """A CA, three certificates of gateways, and one whose secret is missing at first."""
        ca = ROOT.intermediate("cluster1")
        gateways.openbao.put(gateways.mount, "mesh", fields(ca.raw()))
        gateways.bundle("broken")
        for name in ("a", "b", "c"):
            gateways.bundle(name)
            gateways.put(name, leaf().raw())
        gateways.bundle("mesh", output={"directory": str(tmp_path / "mesh")})
        gateways.bundles[-1]["kind"] = "ca"
        with gateways.run() as agent:
            agent.until(lambda: len(agent.publications) == 4)
            agent.until(lambda: agent.logged("There is no secret", bundle="broken"))
            assert (tmp_path / "mesh" / "ca-cert.pem").read_bytes() == ca.pem
            assert gateways.get("/readyz")[0] == 503
            ready = {
                name: gateways.metric("certagent_bundle_ready", bundle=name)
                for name in ("a", "b", "c", "mesh", "broken")
            }
            assert ready == {"a": 1, "b": 1, "c": 1, "mesh": 1, "broken": 0}

            renewed = leaf()
            gateways.put("b", renewed.raw(renewed))
            agent.until(lambda: gateways.served("b") == renewed.pem)
            gateways.put("broken", leaf().raw())
            agent.until(lambda: gateways.get("/readyz")[0] == 200)

    def test_one_that_is_not_required_does_not_fail_the_pod(self, gateways):
        gateways.bundle("optional", required=False)
        gateways.bundle("ingress")
        gateways.put("ingress", leaf().raw())

        assert gateways.verb("init", "--config", gateways.file).code == 0

        assert gateways.served("ingress")

    def test_init_publishes_all_that_work_and_fails_for_one_that_is_required(self, gateways):
        gateways.bundle("broken")
        gateways.bundle("ingress")
        gateways.put("broken", leaf(eku=(CLIENT,)).raw())
        gateways.put("ingress", leaf().raw())

        done = gateways.verb("init", "--config", gateways.file, "--deadline", "1s")

        assert done.code == 65
        assert "serverAuth" in done.stderr
        assert gateways.served("ingress")


class TestLayouts:
    def test_the_kubelets_layout_is_possible_and_warned_of(self, gateways, tmp_path):
        gateways.bundle("ingress", output={"layout": "istiod"})
        gateways.put("ingress", GOOD.raw())

        done = gateways.verb("init", "--config", gateways.file)

        assert done.code == 0
        assert "1.29.0 to 1.29.2" in done.stderr
        assert (tmp_path / "ingress" / "tls.crt").read_bytes() == tls_files(GOOD.raw())["tls.crt"]
        assert gateways.verb("status", tmp_path / "ingress").code == 0

    def test_a_ca_in_the_gateways_layout_is_possible_and_warned_of(self, gateways, tmp_path):
        gateways.bundle("mesh", output={"layout": "gateway"})
        gateways.bundles[-1]["kind"] = "ca"
        ca = ROOT.intermediate()
        gateways.openbao.put(gateways.mount, "mesh", fields(ca.raw()))

        done = gateways.verb("init", "--config", gateways.file)

        assert done.code == 0
        assert "istiod does not look into `current`" in done.stderr
        assert gateways.current("mesh")["ca-cert.pem"] == ca.pem
        assert gateways.verb("check", tmp_path / "mesh").code == 0
        assert gateways.verb("status", "--config", gateways.file).code == 0

    def test_the_usual_layouts_are_not_warned_of(self, gateways):
        gateways.bundle("ingress")
        gateways.put("ingress", GOOD.raw())

        assert "layout" not in gateways.verb("init", "--config", gateways.file).stderr


class TestOperators:
    @pytest.fixture
    def source(self, gateways):
        return f"vault:{gateways.mount}/ingress"

    def stored(self, gateways):
        return gateways.openbao.call("GET", f"{gateways.mount}/data/ingress")["data"]["data"]

    def test_push_stores_what_an_agent_then_publishes(self, gateways, source, tmp_path):
        done = gateways.verb(
            "push", source, "--kind", "tls", "--from", directory(tmp_path / "set", GOOD.raw())
        )

        assert done.code == 0, done.stdout + done.stderr
        assert "version 1 is stored" in done.stdout
        assert "phases" not in done.stdout
        assert self.stored(gateways) == tls_fields(GOOD.raw())
        gateways.bundle("ingress")
        assert gateways.verb("init", "--config", gateways.file).code == 0

    def test_push_takes_a_secret_of_kubernetes(self, gateways, source):
        values = tls_files(leaf().raw()) | {"ca.crt": b""}

        done = gateways.verb(
            "push", source, "--kind", "tls", "--from", "-", stdin=kubernetes(values)
        )

        assert done.code == 0, done.stdout + done.stderr
        assert set(self.stored(gateways)) == {"tls_key", "tls_cert"}

    def test_push_says_what_a_secret_lacks(self, gateways, source):
        ca = kubernetes({"ca-cert.pem": b"x"})

        done = gateways.verb("push", source, "--kind", "tls", "--from", "-", stdin=ca)

        assert done.code == 65
        assert "holds no tls.crt; it has: ca-cert.pem" in done.stderr

    def test_push_goes_by_the_configuration_and_keeps_the_chain_apart(
        self, gateways, source, tmp_path
    ):
        fields_ = {"chain": "tls_chain"}
        kv = {"mount": gateways.mount, "path": "ingress", "fields": fields_}
        gateways.bundle("ingress", source={"vaultKV": kv}, usage="client")
        made = make_leaf(ISSUER, eku=(CLIENT,))
        words = ("push", source, "--config", gateways.file, "--from")

        done = gateways.verb(*words, directory(tmp_path / "set", made.raw()), "--format", "json")

        assert done.code == 0, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert (told["kind"], told["phases"], told["stored"]) == ("tls", [], True)
        assert self.stored(gateways)["tls_chain"] == ISSUER.pem.decode()

        lone = make_leaf(ROOT, eku=(CLIENT,))
        refused = gateways.verb(*words, directory(tmp_path / "lone", lone.raw()))
        assert refused.code == 65
        assert "tls_chain" in refused.stderr

    def test_push_refuses_what_a_gateway_would_and_what_is_older(self, gateways, source, tmp_path):
        words = ("push", source, "--kind", "tls", "--from")
        newer = leaf(not_before=datetime(2025, 6, 1, tzinfo=UTC))
        gateways.verb(*words, directory(tmp_path / "newer", newer.raw()))

        wrong = gateways.verb(*words, directory(tmp_path / "wrong", leaf(eku=(CLIENT,)).raw()))
        older = gateways.verb(*words, directory(tmp_path / "older", leaf().raw()))
        same = gateways.verb(*words, tmp_path / "newer")

        assert wrong.code == 65
        assert "extended-key-usage" in wrong.stdout
        assert older.code == 65
        assert "older-than-stored" in older.stdout
        assert "holds this set already" in same.stdout
        rolled = gateways.verb(*words, tmp_path / "older", "--rollback")
        assert rolled.code == 0

    def test_a_change_of_roots_is_shown_without_phases(self, gateways, source, tmp_path):
        words = ("push", source, "--kind", "tls", "--from")
        gateways.verb(*words, directory(tmp_path / "one", leaf(roots=(CLIENTS,)).raw()))

        done = gateways.verb(*words, directory(tmp_path / "two", leaf(roots=(ROOT,)).raw()))

        assert done.code == 0
        assert "goes at once" in done.stdout
        assert "+ root" in done.stdout

    def test_push_to_kv_v1(self, openbao, gateways, tmp_path):
        mount = openbao.kv(1)
        source = f"vault:{mount}/ingress"

        done = gateways.verb(
            "push", source, "--kind", "tls", "--from", directory(tmp_path / "set", GOOD.raw())
        )

        assert done.code == 0, done.stdout + done.stderr
        assert openbao.call("GET", f"{mount}/ingress")["data"] == tls_fields(GOOD.raw())

    def test_plan_and_retire_are_about_cas(self, gateways, source):
        gateways.bundle("ingress")
        gateways.put("ingress", leaf().raw())
        gateways.put("ingress", leaf().raw())

        for words in (("plan",), ("plan", source), ("retire", source, "--yes")):
            done = gateways.verb(*words, "--config", gateways.file)
            assert done.code == 64, done.stderr
            assert "kind tls" in done.stderr

    def test_retire_destroys_nothing_that_is_no_ca(self, gateways, source):
        gateways.put("ingress", leaf().raw())
        gateways.put("ingress", leaf().raw())

        done = gateways.verb("retire", source, "--yes")

        assert "no version can be destroyed" in done.stdout
        versions = gateways.openbao.call("GET", f"{gateways.mount}/metadata/ingress")["data"]
        assert not any(each["destroyed"] for each in versions["versions"].values())

    def test_plan_of_a_mixed_configuration_shows_the_cas(self, gateways):
        gateways.bundle("ingress")
        gateways.bundle("mesh")
        gateways.bundles[-1]["kind"] = "ca"
        gateways.openbao.put(gateways.mount, "mesh", fields(ROOT.intermediate().raw()))

        done = gateways.verb("plan", "--config", gateways.file)

        assert done.code == 0
        assert "mesh" in done.stdout
        assert "ingress" not in done.stdout

    @pytest.mark.parametrize("verb", [("check", "."), ("push", "vault:a/b", "--from", ".")])
    def test_usage_is_of_kind_tls(self, gateways, verb):
        done = gateways.verb(*verb, "--usage", "client")

        assert done.code == 64
        assert "--kind tls" in done.stderr

    @pytest.mark.parametrize("verb", ["check", "status"])
    @pytest.mark.parametrize("roots", [(), (ROOT,)])
    def test_a_gateways_set_that_is_taken_for_a_ca_s_is_guessed(
        self, gateways, tmp_path, verb, roots
    ):
        place = directory(tmp_path / "set", make_leaf(ISSUER, roots=roots).raw())

        shown = gateways.verb(verb, place)

        assert shown.code == 65
        assert "ask with --kind tls" in shown.stdout

    def test_status_says_of_a_plain_directory_what_it_is_asked(self, gateways, tmp_path):
        place = directory(tmp_path / "set", make_leaf(ISSUER, eku=(SERVER, CLIENT)).raw())
        words = ("status", place, "--format", "json")

        shown = gateways.verb(*words, "--kind", "tls", "--usage", "both")

        assert shown.code == 0
        assert json.loads(shown.stdout)[0]["kind"] == "tls"
        assert gateways.verb(*words).code == 65
