"""`certagent push azure:…`: real processes push, and real pods read in the middle of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from certagent.sources.azure.history import TAG
from tests.support.azure.akv import throttled
from tests.support.azure.faults import answers, hangs, meanwhile
from tests.support.azure.operator import SECRETS, Pusher, store
from tests.support.azure.pod import Pod
from tests.support.material import (
    fields,
    files,
    make_leaf,
    make_root,
    new_key,
    private_key_pem,
    tls_files,
)
from tests.support.process import certagent, published, running, until

A, B = make_root(subject="CN=Root A"), make_root(subject="CN=Root B")
KEY = new_key()
OLD = A.intermediate(key=KEY, not_before=datetime(2025, 2, 1, tzinfo=UTC)).raw()
NEXT = A.intermediate(not_before=datetime(2025, 3, 1, tzinfo=UTC)).raw()
RENEWED = A.intermediate(key=KEY, not_before=datetime(2025, 3, 1, tzinfo=UTC)).raw()
OTHER_ROOT = B.intermediate(not_before=datetime(2025, 4, 1, tzinfo=UTC)).raw()
STORED = "is stored, and was read back"


@pytest.fixture
def pod(azure, tmp_path):
    return Pod(azure, "public", tmp_path)


@pytest.fixture
def vault(pod):
    return pod.vault


@pytest.fixture
def pusher(vault, tmp_path):
    return Pusher(vault, tmp_path)


def held(vault):
    """The newest versions of the parts."""
    return {part: vault.version(name).value.encode() for part, name in SECRETS.items()}


def parts(raw):
    return {part: getattr(raw, part) for part in SECRETS}


class TestStoring:
    def test_the_first_set_is_stored_with_one_tag_and_an_agent_publishes_it(
        self, pod, vault, pusher
    ):
        done = pusher.push(OLD)

        assert done.code == 0, done.stderr
        (tag,) = {vault.version(name).tags[TAG] for name in SECRETS.values()}
        assert f"version {tag} {STORED}" in done.stdout
        assert held(vault) == parts(OLD)
        assert (pod.init().code, published(pod.directory)) == (0, files(OLD))

    def test_a_change_of_roots_is_shown_with_its_phases(self, pod, vault, pusher):
        store(vault, OLD, created_on=pod.start)

        done = pusher.push(OTHER_ROOT, "--format", "json")

        assert done.code == 0, done.stderr
        shown = json.loads(done.stdout)
        assert [each["phase"] for each in shown["phases"]] == ["distribute", "switch", "settled"]
        assert [each["sha256"] for each in shown["rootsAdded"]] == [B.fingerprint]
        assert shown["findings"] == []
        planned = certagent("plan", pusher.source, "--format", "json", **pusher.environ)
        history = json.loads(planned.stdout)[0]["history"]
        assert [each["version"] for each in history] == [shown["previous"], shown["version"]]

    def test_a_dry_run_and_an_identical_set_store_nothing(self, pod, vault, pusher):
        store(vault, OLD, created_on=pod.start)

        dry, same = pusher.push(NEXT, "--dry-run"), pusher.push(OLD)

        assert "nothing was stored (--dry-run)" in dry.stdout
        assert "holds this set already" in same.stdout
        assert (dry.code, same.code, held(vault)) == (0, 0, parts(OLD))

    def test_an_older_set_is_65_and_stored_with_rollback(self, pusher):
        pusher.push(OLD)
        pusher.push(NEXT)

        refused, back = pusher.push(OLD), pusher.push(OLD, "--rollback")

        assert (refused.code, "older-than-stored" in refused.stdout) == (65, True)
        assert (back.code, STORED in back.stdout) == (0, True)

    def test_a_set_that_does_not_verify_is_65_and_nobody_is_asked(self, pod, vault, pusher):
        bad = A.intermediate().raw(private_key=private_key_pem(new_key()))

        done = pusher.push(bad)

        assert (done.code, "key-mismatch" in done.stdout) == (65, True)
        assert pod.azure.requests(vault) == []

    def test_one_secret_holds_all_parts_where_it_is_named(self, vault, pusher):
        done = pusher.push(OLD, source="azure:mesh/mesh-ca")

        assert done.code == 0, done.stderr
        assert json.loads(vault.version("mesh-ca").value) == fields(OLD)
        assert "azure:mesh/mesh-ca: version" in done.stdout

    def test_an_agent_reads_that_secret_by_the_same_name(self, pod, pusher):
        pusher.push(OLD, source="azure:mesh/mesh-ca")

        done = pod.init(CERTAGENT_SOURCE="azure:mesh/mesh-ca")

        assert (done.code, published(pod.directory)) == (0, files(OLD))

    def test_no_output_holds_a_key(self, pusher):
        key = OLD.private_key.decode().splitlines()[1]
        for flags in ((), ("--dry-run",), ("--format", "json")):
            done = pusher.push(OLD, *flags, CERTAGENT_LOG_LEVEL="debug")
            assert key not in done.stdout + done.stderr


class TestBundlesOfOneVault:
    """A vault has no folders: the configuration says which secrets are whose."""

    @pytest.fixture
    def config(self, vault, tmp_path):
        def bundle(name, source, **others):
            output = {"directory": f"/run/{name}"}
            return {"name": name, "source": {"azureKeyVault": source}, "output": output, **others}

        names = {"privateKey": "shop-key", "certificate": "shop-cert"}
        more = {"privateKey": "api-key", "certificate": "api-cert"}
        document = {
            "azure": {"vaultUrl": vault.url},
            "bundles": [
                bundle("mesh", {}),
                bundle("shop", {"secrets": names}, kind="tls"),
                bundle("api", {"secrets": more}, kind="tls"),
                bundle("edge", {"certificate": "edge"}, kind="tls"),
            ],
        }
        path = tmp_path / "certagent.yaml"
        path.write_text(json.dumps(document))
        return path

    def push(self, pusher, made, *words):
        words = ("push", *words, "--from", pusher.directory(made))
        return certagent(*words, **pusher.environ)

    def test_the_one_that_is_named_is_written(self, vault, pusher, config):
        leaf = make_leaf().raw()
        how = ("--config", config, "--bundle", "shop")

        done = self.push(pusher, tls_files(leaf), "azure:mesh", *how)

        assert done.code == 0, done.stderr
        assert set(vault.live) == {"shop-key", "shop-cert"}

    def test_the_only_one_of_its_kind_needs_no_name(self, vault, pusher, config):
        done = self.push(pusher, files(OLD), "azure:mesh", "--kind", "ca", "--config", config)

        assert done.code == 0, done.stderr
        assert held(vault) == parts(OLD)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["azure:mesh"], "SOURCE holds several bundles: mesh, shop, api"),
            (["azure:mesh", "--kind", "tls"], "SOURCE holds several bundles: shop, api"),
            (["azure:mesh", "--bundle", "other"], "no bundle 'other'"),
            (["azure:mesh/edge"], "is a certificate object"),
            (["file:/tmp"], "no store to write to"),
        ],
    )
    def test_what_is_not_clear_is_64_and_nothing_is_written(
        self, vault, pusher, config, words, said
    ):
        done = self.push(pusher, files(OLD), *words, "--config", config)

        assert (done.code, said in done.stderr) == (64, True), done.stderr
        assert vault.live == {}


class TestReadersInTheMiddle:
    @pytest.mark.parametrize(
        ("how", "new"),
        [({}, RENEWED), ({"tags": {TAG: "X"}}, RENEWED), ({}, NEXT)],
        ids=["by hand before, same key", "pushed before, same key", "by hand before, new key"],
    )
    @pytest.mark.parametrize("may_list", [True, False], ids=["list", "get"])
    def test_at_each_moment_pods_have_the_old_set_or_the_new_one(
        self, pod, vault, pusher, tmp_path, may_list, how, new
    ):
        store(vault, OLD, created_on=pod.start, **how)
        if not may_list:
            vault.revoke(pod.app, "list")
        newborns = [tmp_path / f"newborn-{number}" for number in range(4)]
        seen = []

        def look():
            polls = len(pod.requests)
            newborn = newborns[len(seen)]
            code = pod.init(ROOT_CA_DIR=newborn).code
            until(lambda: len(pod.requests) >= polls + 16)
            seen.append((published(pod.directory), code, published(newborn)))

        with pod.run() as agent:
            agent.until(lambda: agent.publications)
            pod.azure.faults.inject(meanwhile(look), method="PUT", times=4)

            done = pusher.push(new)

            assert done.code == 0, done.stderr
            agent.until(lambda: published(pod.directory) == files(new))
            agent.stop()
        old = files(OLD)
        whole, waiting = (old, 0, old), (old, 65, {})
        assert seen == [whole, *[whole if may_list else waiting] * 3]
        assert len(agent.publications) == 2


class TestKilledInTheMiddle:
    @pytest.mark.parametrize("at", ["cert-chain", "root-cert", "ca-cert"])
    def test_the_old_set_stays_and_the_next_push_is_whole(self, pod, vault, pusher, at):
        store(vault, OLD, created_on=pod.start)
        fault = pod.azure.faults.inject(hangs, method="PUT", path=at, times=None)
        words = (pusher.source, "--from", pusher.directory(files(NEXT)))
        with running(*words, verb="push", **pusher.environ) as push:
            push.until(lambda: f"/secrets/{at}" in pod.requests)
            push.process.kill()
            push.process.wait(10)
        fault.times = 0
        assert (pod.init().code, published(pod.directory)) == (0, files(OLD))

        done = pusher.push(NEXT)

        assert (done.code, STORED in done.stdout) == (0, True)
        assert (pod.init().code, published(pod.directory)) == (0, files(NEXT))


class TestTwoPipelines:
    def test_of_two_that_cross_one_is_told_and_pods_have_one_whole_set(
        self, pod, vault, pusher, tmp_path
    ):
        store(vault, OLD, created_on=pod.start)
        other = Pusher(vault, tmp_path)
        theirs = []
        pod.azure.faults.inject(
            meanwhile(lambda: theirs.append(other.push(RENEWED))), method="PUT", path="root-cert"
        )

        ours = pusher.push(NEXT)

        assert (ours.code, theirs[0].code) == (73, 0), ours.stderr + theirs[0].stderr
        assert "Somebody else stored" in ours.stderr
        assert pod.init().code == 0
        assert published(pod.directory) in (files(NEXT), files(RENEWED))


class TestFaults:
    def test_a_refusal_in_the_middle_is_77_and_tells_what_was_written(self, pod, vault, pusher):
        store(vault, OLD, created_on=pod.start)
        pod.azure.faults.inject(
            meanwhile(lambda: vault.revoke(pusher.app, "set")), method="PUT", path="root-cert"
        )

        done = pusher.push(NEXT)

        assert done.code == 77
        for said in ("ForbiddenByRbac", "'ca-key' and 'cert-chain' were written", "Push again",
                     "Key Vault Secrets Officer", "agents keep the last good set"):  # fmt: skip
            assert said in done.stderr
        assert (pod.init().code, published(pod.directory)) == (0, files(OLD))

    def test_throttling_is_waited_for(self, pod, vault, pusher):
        pod.azure.faults.inject(answers(429, throttled(), Retry_After="1"), method="PUT")

        done = pusher.push(OLD)

        assert (done.code, "Trying again in 1 s" in done.stderr) == (0, True)
        assert held(vault) == parts(OLD)

    def test_a_deleted_secret_is_73_with_the_command_that_brings_it_back(self, vault, pusher):
        pusher.push(OLD)
        vault.delete("ca-cert")

        done = pusher.push(NEXT)

        assert done.code == 73
        assert "az keyvault secret recover --vault-name mesh --name ca-cert" in done.stderr

    def test_a_push_that_may_only_read_is_77(self, pod, vault, tmp_path):
        store(vault, OLD, created_on=pod.start)

        done = Pusher(vault, tmp_path, "get", "list").push(NEXT)

        assert (done.code, "Secrets Officer" in done.stderr) == (77, True)
        assert held(vault) == parts(OLD)

    def test_access_policies_need_get_list_and_set(self, vault, tmp_path):
        vault.authorization = "policies"

        assert Pusher(vault, tmp_path).push(OLD).code == 0
        assert Pusher(vault, tmp_path, "get", "set").push(NEXT).code == 77
