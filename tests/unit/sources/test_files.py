"""A directory as a source: what istiod would read there, as one set."""

import errno
import os
import re
import socket
import tempfile
from pathlib import Path

import pytest

from certagent.errors import AccessDenied, MaterialRefused, SecretNotFound, SourceUnavailable
from certagent.material.raw import MAX_PART_BYTES, RawBundle
from certagent.material.serving import tls
from certagent.sinks import Publication
from certagent.sinks.directory import AtomicDirectory
from certagent.sinks.layouts import GATEWAY
from certagent.sources import files
from certagent.sources.files import DirectorySource, read_directory_parts

ISTIO = {
    "ca-key.pem": b"key\n",
    "ca-cert.pem": b"cert\n",
    "cert-chain.pem": b"chain\n",
    "root-cert.pem": b"root\n",
}
TLS = {"tls.key": b"key\n", "tls.crt": b"cert\n", "ca.crt": b"root\n"}


def _write(directory, contents):
    for name, data in contents.items():
        (directory / name).write_bytes(data)


def _mount(directory, stamp, contents):
    """Lay a set out as the kubelet does, and remove the one before at once, as it does."""
    before = directory / "..data"
    old = before.resolve() if before.is_symlink() else None
    version = directory / stamp
    version.mkdir()
    _write(version, contents)
    (directory / "..data_tmp").symlink_to(stamp)
    (directory / "..data_tmp").rename(before)
    for name in contents:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    if old:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()


@pytest.fixture
def directory(tmp_path):
    _write(tmp_path, ISTIO)
    return tmp_path


def _codes(refused):
    return [(finding.code, finding.part) for finding in refused.value.findings]


# The source


def test_its_name_is_what_an_operator_writes():
    assert DirectorySource("/etc/cacerts").name == "file:/etc/cacerts"


def test_it_has_one_revision_without_a_time(directory):
    (revision,) = DirectorySource(directory).revisions()
    assert revision.created_at is None
    assert revision.withdrawn == ""
    bundle = revision.load()
    assert (bundle.private_key, bundle.certificate) == (b"key\n", b"cert\n")
    assert (bundle.chain, bundle.roots, bundle.crls) == (b"chain\n", b"root\n", b"")


def test_the_version_names_the_content(directory):
    source = DirectorySource(directory)
    (first,) = source.revisions()
    (again,) = source.revisions()
    assert re.fullmatch("sha256:[0-9a-f]{12}", first.version)
    assert again.version == first.version
    (directory / "root-cert.pem").write_bytes(b"other\n")
    (changed,) = source.revisions()
    assert changed.version != first.version


def test_bytes_that_move_from_one_file_to_the_next_are_another_version(directory):
    source = DirectorySource(directory)
    (first,) = source.revisions()
    _write(directory, {"ca-cert.pem": b"cert\nc", "cert-chain.pem": b"hain\n"})
    (moved,) = source.revisions()
    assert moved.version != first.version


def test_a_revision_stays_what_it_was_when_the_directory_changes(directory):
    (revision,) = DirectorySource(directory).revisions()
    (directory / "ca-cert.pem").write_bytes(b"other\n")
    assert revision.load().certificate == b"cert\n"


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    revisions = DirectorySource(tmp_path / "missing").revisions()
    with pytest.raises(SecretNotFound):
        next(revisions)


def test_a_set_that_is_not_whole_is_refused_when_loaded(directory):
    (directory / "ca-cert.pem").unlink()
    (directory / "root-cert.pem").write_bytes(b"")
    (revision,) = DirectorySource(directory).revisions()
    with pytest.raises(MaterialRefused) as refused:
        revision.load()
    assert _codes(refused) == [("part-missing", "certificate"), ("part-empty", "roots")]


def test_no_key_is_in_a_representation(directory):
    (revision,) = DirectorySource(directory).revisions()
    assert "key" not in repr(revision)
    assert r"key\n" not in repr(revision.load())


# Layouts


def test_revocations_are_read_where_there_are_some(directory):
    (directory / "ca-crl.pem").write_bytes(b"crl\n")
    assert read_directory_parts(directory).crls == b"crl\n"


def test_an_empty_file_of_revocations_is_none(directory):
    (directory / "ca-crl.pem").write_bytes(b"")
    assert read_directory_parts(str(directory)).crls == b""


def test_the_tls_layout_wins_as_with_istiod(directory):
    _write(directory, TLS | {"tls.crt": b"another\n", "ca-crl.pem": b"crl\n"})
    bundle = read_directory_parts(directory)
    assert bundle.certificate == b"another\n"
    assert bundle.crls == b""


def test_the_chain_of_the_tls_layout_is_glued_as_istiod_glues_it(tmp_path):
    _write(tmp_path, {"tls.key": b"key", "tls.crt": b"cert", "ca.crt": b"root"})
    bundle = read_directory_parts(tmp_path)
    assert (bundle.private_key, bundle.certificate, bundle.roots) == (b"key", b"cert", b"root")
    assert bundle.chain == b"certroot"


def test_a_tls_layout_without_its_root_is_refused(tmp_path):
    _write(tmp_path, {"tls.key": b"key\n", "tls.crt": b"cert\n"})
    with pytest.raises(MaterialRefused) as refused:
        read_directory_parts(tmp_path)
    assert _codes(refused) == [("part-missing", "roots")]


def test_a_tls_crt_that_leads_nowhere_is_not_there(directory):
    (directory / "tls.crt").symlink_to("nowhere")
    assert read_directory_parts(directory).certificate == b"cert\n"


def test_a_tls_crt_that_is_no_file_is_still_the_tls_layout(directory):
    (directory / "tls.crt").mkdir()
    (directory / "tls.key").write_bytes(b"key\n")
    with pytest.raises(MaterialRefused) as refused:
        read_directory_parts(directory)
    assert ("part-missing", "certificate") in _codes(refused)


def test_links_to_files_elsewhere_are_followed(directory, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "key"
    elsewhere.write_bytes(b"another key\n")
    (directory / "ca-key.pem").unlink()
    (directory / "ca-key.pem").symlink_to(elsewhere)
    assert read_directory_parts(directory).private_key == b"another key\n"


# What is not there, or cannot be read


def test_a_missing_directory_is_no_secret(tmp_path):
    with pytest.raises(SecretNotFound, match="does not exist") as missing:
        read_directory_parts(tmp_path / "missing")
    assert "mounted" in missing.value.hint


def test_a_file_in_the_directorys_place_is_no_secret(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretNotFound, match="is not a directory"):
        read_directory_parts(tmp_path / "file")


@pytest.mark.parametrize("others", [[], ["ca-crl.pem"], ["key.pem", "README"]])
def test_a_directory_without_any_of_the_four_is_no_secret(tmp_path, others):
    _write(tmp_path, dict.fromkeys(others, b"x"))
    with pytest.raises(SecretNotFound, match=r"none of ca-key\.pem, ca-cert\.pem"):
        read_directory_parts(tmp_path)


def _make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's address has 108 bytes at most: name it relative to its directory.
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(before)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, _make_socket])
def test_what_is_no_file_is_not_there_and_holds_nobody_up(directory, make):
    (directory / "ca-key.pem").unlink()
    make(directory / "ca-key.pem")
    with pytest.raises(MaterialRefused) as refused:
        read_directory_parts(directory)
    assert _codes(refused) == [("part-missing", "private_key")]


def test_an_endless_device_is_not_read(directory):
    (directory / "ca-key.pem").unlink()
    (directory / "ca-key.pem").symlink_to("/dev/zero")
    with pytest.raises(MaterialRefused):
        read_directory_parts(directory)


def test_a_file_is_read_no_further_than_needed_to_refuse_it(directory):
    os.truncate(directory / "ca-key.pem", 1 << 30)
    with (directory / "ca-key.pem").open("r+b") as file:
        file.write(b"x")
    (revision,) = DirectorySource(directory).revisions()
    with pytest.raises(MaterialRefused, match=f"{MAX_PART_BYTES + 1} bytes") as refused:
        revision.load()
    assert _codes(refused) == [("part-too-large", "private_key")]


def _fail(monkeypatch, number, name="ca-key.pem"):
    real = os.open

    def failing(path, *args, **kwargs):
        if path == name:
            raise OSError(number, os.strerror(number), name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", failing)


def test_a_file_that_may_not_be_read_is_denied(directory, monkeypatch):
    _fail(monkeypatch, errno.EACCES)
    with pytest.raises(AccessDenied, match=f"User {os.geteuid()} may not read ca-key.pem"):
        read_directory_parts(directory)


@pytest.mark.parametrize("number", [errno.EIO, errno.ELOOP, errno.ESTALE])
def test_a_file_that_cannot_be_read_makes_the_source_unavailable(directory, monkeypatch, number):
    _fail(monkeypatch, number)
    with pytest.raises(SourceUnavailable, match=re.escape(os.strerror(number))):
        read_directory_parts(directory)


def test_another_users_directory_is_denied(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        _write(path, ISTIO)
        path.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(AccessDenied):
                read_directory_parts(path)
        finally:
            os.seteuid(user)
            path.chmod(0o700)


def test_reading_leaves_no_descriptor_open(directory):
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - descriptors, not paths
    read_directory_parts(directory)
    (directory / "ca-key.pem").unlink()
    (directory / "ca-key.pem").mkdir()
    with pytest.raises(MaterialRefused):
        read_directory_parts(directory)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# A mounted Secret, swapped by the kubelet


def test_a_mounted_secret_is_read(tmp_path):
    _mount(tmp_path, "..1", ISTIO)
    assert read_directory_parts(tmp_path).private_key == b"key\n"


def test_a_mounted_tls_secret_is_read(tmp_path):
    _mount(tmp_path, "..1", TLS)
    assert read_directory_parts(tmp_path).chain == b"cert\nroot\n"


def test_what_a_reader_cannot_see_by_its_name_is_not_there(tmp_path):
    _mount(tmp_path, "..1", ISTIO)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(MaterialRefused) as refused:
        read_directory_parts(tmp_path)
    assert _codes(refused) == [("part-missing", "private_key")]


def _swap_at(monkeypatch, name, swaps):
    """Do the next of the swaps whenever a file of this name is opened."""
    real = os.open
    pending = list(swaps)

    def swapping(path, *args, **kwargs):
        if path == name and pending:
            pending.pop(0)()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", swapping)
    return pending


def _generation(number):
    return {name: b"%d %s" % (number, data) for name, data in ISTIO.items()}


def test_a_swap_while_reading_gives_the_new_set_whole(tmp_path, monkeypatch):
    _mount(tmp_path, "..1", _generation(1))
    _swap_at(monkeypatch, "cert-chain.pem", [lambda: _mount(tmp_path, "..2", _generation(2))])
    bundle = read_directory_parts(tmp_path)
    found = [bundle.private_key, bundle.certificate, bundle.chain, bundle.roots]
    assert found == list(_generation(2).values())


def test_swaps_without_end_end_in_a_refusal_not_in_a_mixture(tmp_path, monkeypatch):
    _mount(tmp_path, "..0", _generation(0))
    swaps = [
        lambda number=number: _mount(tmp_path, f"..{number}", _generation(number))
        for number in range(1, 20)
    ]
    left = _swap_at(monkeypatch, "cert-chain.pem", swaps)
    with pytest.raises(MaterialRefused):
        read_directory_parts(tmp_path)
    assert len(left) == 14


def test_a_secret_that_is_unmounted_while_reading_is_refused(tmp_path, monkeypatch):
    _mount(tmp_path, "..1", ISTIO)
    _swap_at(monkeypatch, "cert-chain.pem", [(tmp_path / "..data").unlink])
    with pytest.raises(SecretNotFound):
        read_directory_parts(tmp_path)


# What an agent published for a gateway


@pytest.fixture
def published(tmp_path):
    """Publish sets in the gateways' layout, which removes the one before at once."""
    sink = AtomicDirectory(tmp_path / "ingress", layout=GATEWAY)
    yield lambda contents: sink.publish(Publication(contents, frozenset(), {}))
    sink.close()


def test_a_gateways_directory_is_read_through_its_link(tmp_path, published):
    published(TLS)
    assert read_directory_parts(tmp_path / "ingress").chain == b"cert\nroot\n"
    assert read_directory_parts(tmp_path / "ingress" / "current").private_key == b"key\n"


@pytest.mark.parametrize("name", ["v1", "ca-key.pem", "cert-chain.pem"])
def test_a_swap_of_a_gateways_set_while_reading_gives_the_new_one_whole(
    tmp_path, published, monkeypatch, name
):
    published(_generation(1))
    _swap_at(monkeypatch, name, [lambda: published(_generation(2))])
    bundle = read_directory_parts(tmp_path / "ingress")
    found = [bundle.private_key, bundle.certificate, bundle.chain, bundle.roots]
    assert found == list(_generation(2).values())


@pytest.mark.parametrize("leads_to", ["elsewhere", "../v1"])
def test_a_link_of_that_name_that_is_not_ours_changes_nothing(directory, leads_to):
    (directory / "elsewhere").mkdir()
    (directory / "current").symlink_to(leads_to)
    assert read_directory_parts(directory).private_key == b"key\n"


def test_a_gateways_set_that_lost_its_version_is_not_there(directory):
    (directory / "current").symlink_to("v1")
    with pytest.raises(SecretNotFound):
        read_directory_parts(directory)


class TestGateways:
    """A directory of kind tls: the names of a kubernetes.io/tls Secret, ca.crt optional."""

    def test_the_parts_are_those_of_the_files(self, tmp_path):
        _write(tmp_path, TLS)

        assert read_directory_parts(tmp_path, tls()) == RawBundle(
            b"key\n", b"cert\n", b"", b"root\n"
        )

    @pytest.mark.parametrize("root", [{}, {"ca.crt": b""}])
    def test_without_a_ca_there_are_no_roots(self, tmp_path, root):
        _write(tmp_path, {"tls.key": b"key\n", "tls.crt": b"cert\n", **root})

        assert read_directory_parts(tmp_path, tls()).roots == b""

    def test_a_mounted_secret_is_read(self, tmp_path):
        _mount(tmp_path, "..1", TLS)

        assert read_directory_parts(tmp_path, tls()).certificate == b"cert\n"

    def test_what_is_published_for_a_gateway_is_read(self, tmp_path):
        sink = AtomicDirectory(tmp_path, layout=GATEWAY)
        sink.publish(Publication(TLS, frozenset({"tls.key"}), {}))
        sink.close()

        assert read_directory_parts(tmp_path, tls()).private_key == b"key\n"

    def test_a_part_that_is_missing_is_refused(self, tmp_path):
        _write(tmp_path, {"tls.crt": b"cert\n"})

        with pytest.raises(MaterialRefused) as refused:
            read_directory_parts(tmp_path, tls())

        assert _codes(refused) == [("part-missing", "private_key")]

    @pytest.mark.parametrize("other", [{}, ISTIO, {"ca.crt": b"root\n"}])
    def test_a_directory_without_such_a_set_holds_none(self, tmp_path, other):
        _write(tmp_path, other)

        with pytest.raises(SecretNotFound, match=r"holds none of tls\.key, tls\.crt"):
            read_directory_parts(tmp_path, tls())

    def test_a_source_tells_another_content_by_another_version(self, tmp_path):
        source = DirectorySource(tmp_path, tls())
        versions = []
        for cert in (b"one\n", b"two\n"):
            _write(tmp_path, TLS | {"tls.crt": cert})
            (revision,) = source.revisions()
            assert revision.load().certificate == cert
            versions.append(revision.version)

        assert versions[0] != versions[1]
