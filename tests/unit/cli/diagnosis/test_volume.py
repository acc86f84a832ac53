"""The output directory: what an agent would meet there, without touching it."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from certagent.cli.diagnosis import volume
from certagent.cli.diagnosis.mounts import Mount
from certagent.cli.diagnosis.result import About, attempt
from certagent.cli.wiring import sink
from certagent.config.model import BundleConfig, FilesSource, OutputConfig, SourceConfig
from certagent.material.kinds import CA
from certagent.sinks import Publication
from tests.support.diagnosis import Report, configured
from tests.support.material import files, make_root

MEMORY = (Mount("/", "/", "tmpfs"),)
ROOMY = {"f_flag": 0, "f_bavail": 1000, "f_frsize": 4096, "f_files": 1000, "f_favail": 1000}


@pytest.fixture
def home(tmp_path):
    """The directory of the output, which exists."""
    (tmp_path / "ca").mkdir()
    return tmp_path


@pytest.fixture
def bundle(home):
    def bundle(**keys):
        (only,) = configured(home, {"files": {"directory": "/none"}}, bundle=keys).bundles
        return only

    return bundle


@pytest.fixture
def examined(bundle):
    def examined(table=MEMORY, **keys):
        return Report(volume.results(bundle(**keys), table))

    return examined


@pytest.fixture
def user(monkeypatch):
    """Run as istiod's user, as far as the checks can see."""
    monkeypatch.setattr(os, "geteuid", lambda: 1337)


@pytest.fixture
def somebody():
    """A place with a directory `ca` of somebody else's, and no privileges that outdo its modes."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "ca").mkdir(0o555)
        (home / "closed").mkdir(0o000)
        if user == 0:
            os.seteuid(65534)
        yield home
        os.seteuid(user)
        (home / "closed").chmod(0o700)


@pytest.fixture
def statvfs(monkeypatch):
    def statvfs(**values):
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**{**ROOMY, **values}))

    return statvfs


def tree(path):
    """Everything below a directory, with what a write would change of it."""
    return {
        str(each): (each.lstat().st_mtime_ns, each.lstat().st_ino)
        for each in (path, *path.rglob("*"))
    }


class TestDirectory:
    @pytest.mark.usefixtures("user")
    def test_one_in_memory_that_belongs_to_certagent(self, examined):
        report = examined()

        assert {each.verdict.value for each in report.results} == {"ok"}
        assert [each.name for each in report.results] == ["directory", "mount", "owner", "space"]

    def test_nothing_is_changed(self, bundle, home):
        examined = bundle()
        before = tree(home)

        Report(volume.results(examined, MEMORY))

        assert tree(home) == before

    def test_one_that_another_agent_holds_can_be_looked_at(self, examined, bundle):
        held = sink(bundle())
        held.publish(Publication({"ca-key.pem": b"k"}, frozenset({"ca-key.pem"}), {}))

        assert examined().verdicts("directory") == ["ok"]
        held.close()

    def test_one_that_is_missing_is_made_where_nobody_may_look(self, examined, home):
        (home / "ca").rmdir()

        report = examined()

        assert report.verdicts("directory") == ["warning"]
        assert "Mount the volume" in report.the("directory").fix
        assert not (home / "ca").exists()

    def test_one_that_is_missing_and_cannot_be_made(self, examined, home, monkeypatch):
        (home / "ca").rmdir()
        monkeypatch.setattr(os, "access", lambda *_, **__: False)

        report = examined()

        assert report.failures == [("directory", 73)]
        assert "does not exist, and cannot be made" in report.text

    def test_a_link(self, examined, home):
        (home / "ca").rename(home / "real")
        (home / "ca").symlink_to("real")

        report = examined()

        assert report.failures == [("directory", 73)]
        assert "symbolic link" in report.text

    def test_a_link_that_leads_nowhere(self, examined, home):
        (home / "ca").rmdir()
        (home / "ca").symlink_to("nowhere")

        assert examined().failures == [("directory", 73)]

    def test_a_file(self, examined, home):
        (home / "ca").rmdir()
        (home / "ca").write_text("")

        assert "not a directory" in examined().the("directory").message

    def test_one_below_a_file(self, examined, home):
        (home / "ca").rmdir()
        (home / "file").write_text("")

        found = examined(output={"directory": str(home / "file" / "ca")})

        assert found.failures == [("directory", 73)]
        assert "not a directory" in found.the("directory").message

    @pytest.mark.parametrize("at", ["ca", "ca/deeper", "closed/ca", "closed/ca/deeper"])
    def test_one_of_somebody_else(self, somebody, at):
        source = SourceConfig(files=FilesSource(directory="/none"))
        output = OutputConfig(directory=str(somebody / at))
        theirs = BundleConfig(name="ca", source=source, output=output)

        report = Report(volume.results(theirs, MEMORY))

        assert report.failures == [("directory", 73)]
        assert f"user {os.geteuid()} has no permission" in report.text
        assert "1337:1337" in report.the("directory").fix

    def test_a_read_only_volume(self, examined, statvfs):
        statvfs(f_flag=os.ST_RDONLY)

        report = examined()

        assert report.failures == [("directory", 73)]
        assert "read-only" in report.text

    @pytest.mark.parametrize("name", ["tls.crt", "istio-generated", "ca-key.pem"])
    def test_what_somebody_else_put_there(self, examined, home, name):
        (home / "ca" / name).write_text("")

        report = examined()

        assert report.failures == [("directory", 73)]
        assert name in report.text

    def test_a_mounted_secret(self, examined, home):
        (home / "ca" / "..2026_07_01").mkdir()
        (home / "ca" / "..data").symlink_to("..2026_07_01")

        assert "kubelet" in examined().the("directory").fix

    def test_a_layout_for_the_other_kind(self, examined, home):
        output = {"directory": str(home / "ca"), "layout": "gateway"}

        report = examined(output=output)

        assert report.verdicts("directory") == ["warning", "ok"]
        assert "`current`" in report.the("directory", "warning").fix

    @pytest.mark.parametrize("layout", ["istiod", "gateway"])
    def test_one_that_is_swapped_all_the_time(self, bundle, home, layout):
        it = bundle(output={"directory": str(home / "ca"), "layout": layout})
        files_ = {"ca-key.pem": b"k", "ca-cert.pem": b"c"}
        at, rotations = sink(it), 60

        def rotate():
            for number in range(rotations):
                record = {"version": str(number)}
                at.publish(Publication(files_, frozenset({"ca-key.pem"}), record))

        with ThreadPoolExecutor(1) as agent:
            rotating = agent.submit(rotate)
            failures = []
            while not rotating.done():
                failures += Report(volume.results(it, MEMORY)).failures
        at.close()

        assert rotating.exception() is None
        assert failures == []

    def test_a_version_that_the_agent_removes_meanwhile(self, examined, home, monkeypatch):
        output = {"directory": str(home / "ca"), "layout": "gateway"}
        monkeypatch.setattr(os, "listdir", lambda _: ["v7"])

        assert examined(output=output).failures == []


class TestMount:
    def test_a_disk_would_keep_the_key(self, examined):
        report = examined((Mount("/", "/", "ext4"),))

        assert "medium: Memory" in report.the("mount", "warning").fix

    def test_a_part_of_a_volume(self, examined):
        report = examined((Mount("/", "/sub", "tmpfs"),))

        assert report.verdicts("mount") == ["warning", "ok"]
        assert "subPath: /sub" in report.the("mount", "warning").message

    def test_a_kernel_that_does_not_tell(self, examined):
        assert examined(()).verdicts("mount") == ["skipped"]


class TestOwner:
    def test_the_key_of_root_cannot_be_read_by_istiod(self, examined, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)

        assert "runAsUser: 1337" in examined().the("owner", "warning").fix

    def test_root_may_let_a_group_read(self, examined, home, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        output = {"directory": str(home / "ca"), "keyMode": "0640"}

        assert examined(output=output).verdicts("owner") == ["ok"]

    @pytest.mark.usefixtures("user")
    def test_a_key_for_everybody(self, examined, home):
        output = {"directory": str(home / "ca"), "keyMode": "0644"}

        assert "everybody" in examined(output=output).the("owner", "warning").message


class TestSpace:
    def test_a_volume_that_is_full(self, examined, statvfs):
        statvfs(f_bavail=3)

        report = examined()

        assert report.failures == [("space", 73)]
        assert "12 KiB left" in report.text

    def test_a_volume_that_is_nearly_full(self, examined, statvfs):
        statvfs(f_bavail=20)

        assert examined().verdicts("space") == ["warning"]

    def test_no_files_left(self, examined, statvfs):
        statvfs(f_favail=3)

        assert "3 files left" in examined().the("space").message

    def test_a_file_system_that_counts_no_files(self, examined, statvfs):
        statvfs(f_files=0, f_favail=0)

        assert examined().verdicts("space") == ["ok"]


class TestPublished:
    @pytest.fixture
    def ca(self):
        return make_root().intermediate()

    @pytest.fixture
    def publish(self, bundle):
        def publish(raw):
            found = files(raw)
            at = sink(bundle())
            at.publish(Publication(found, frozenset({CA.files["private_key"]}), {"version": "5"}))
            at.close()

        return publish

    @pytest.fixture
    def published(self, bundle):
        def published(now=None):
            now = now or datetime.now(UTC)
            return Report(attempt(About("published"), volume.published(bundle(), now)))

        return published

    def test_a_good_set(self, publish, published, ca):
        publish(ca.raw())

        result = published().the("published")

        assert result.verdict == "ok"
        assert result.message.startswith("version 5: ")

    def test_nothing_yet(self, published):
        assert published().verdicts("published") == ["warning"]

    def test_no_directory(self, published, home):
        (home / "ca").rmdir()

        assert published().verdicts("published") == ["warning"]

    def test_a_set_that_has_expired(self, publish, published, ca):
        publish(ca.raw())

        report = published(datetime(2046, 1, 1, tzinfo=UTC))

        assert {code for _, code in report.failures} == {65}
        assert "expired" in report.text

    def test_a_set_that_somebody_should_look_at(self, publish, published, ca):
        publish(ca.raw(roots=(ca.root, make_root(not_after=datetime(2026, 1, 1, tzinfo=UTC)))))

        report = published()

        assert report.verdicts("published") == ["warning"]
        assert "root-not-valid" in report.text

    def test_a_set_that_would_be_refused(self, publish, published, ca):
        publish(ca.raw(private_key=make_root().key_pem))

        assert ("published", 65) in published().failures

    def test_a_place_that_cannot_be_read(self, published, home):
        (home / "ca").rmdir()
        (home / "ca").write_text("")

        assert published().failures == [("published", 73)]
