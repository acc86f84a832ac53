"""`certagent ca root|intermediate`: what it makes, and what it refuses to make or to replace."""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certagent.cli import ca, newfiles
from certagent.cli.main import main
from certagent.material.bundle import KeyCertBundle
from certagent.material.verification import verify
from certagent.sources.files import read_directory_parts
from tests.support import material

SET = {"ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"}
NOW = datetime.now(UTC).replace(microsecond=0)
VALID = {"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=3000)}


def make_root(directory, *words):
    assert main(["ca", "root", "--key", "ec256", "--out", str(directory), *words]) == 0


def intermediates(root, out, *words) -> list[str]:
    where = ["--root", str(root), "--out", str(out)]
    return ["ca", "intermediate", "--key", "ec256", *where, *words]


def intermediate(root, out, *words):
    return main(intermediates(root, out, *words))


def store_root(directory: Path, root, key=None) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "root-key.pem").write_bytes(key or root.key_pem)
    (directory / "root-cert.pem").write_bytes(root.pem)
    return directory


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def content(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path, capsys):
    make_root(tmp_path / "mesh")
    capsys.readouterr()
    return tmp_path / "mesh"


@pytest.fixture
def refused(capsys):
    """Run a command that must fail with a code, and return what it says; nothing goes to stdout."""

    def run(code, *words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err

    return run


# What is made


def test_the_defaults_are_those_of_the_makefile():
    parser = argparse.ArgumentParser()
    ca.configure(parser)
    defaults = parser.parse_args(["root", "--out", "x"])
    assert (defaults.key, defaults.days, defaults.crl_sign) == ("rsa4096", 3650, False)


def test_a_root_has_the_profile_of_tools_certs(root):
    certificate = load(root / "root-cert.pem")
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert certificate.subject.rfc4514_string() == "CN=Root CA,O=Istio"
    assert certificate.issuer == certificate.subject
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    assert constraints.critical
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.digital_signature
    assert usage.value.content_commitment
    assert usage.value.key_encipherment
    assert not usage.value.crl_sign
    lived = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lived == timedelta(days=3650)


def test_an_intermediate_has_the_profile_of_tools_certs(root, tmp_path):
    assert intermediate(root, tmp_path / "out", "cluster1") == 0
    certificate = load(tmp_path / "out/cluster1/ca-cert.pem")
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    assert certificate.subject.rfc4514_string() == "L=cluster1,CN=Intermediate CA,O=Istio"
    assert constraints == x509.BasicConstraints(ca=True, path_length=0)
    assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc"]
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign


def test_crl_sign_is_added_on_request_to_both(tmp_path):
    make_root(tmp_path, "--crl-sign")
    assert intermediate(tmp_path, tmp_path, "cluster1", "--crl-sign") == 0
    for path in ("root-cert.pem", "cluster1/ca-cert.pem"):
        usage = load(tmp_path / path).extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.crl_sign


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("rsa2048", rsa.RSAPrivateKey, 2048),
        ("ec256", ec.EllipticCurvePrivateKey, 256),
        ("ec384", ec.EllipticCurvePrivateKey, 384),
    ],
)
def test_the_kind_of_key_can_be_chosen(tmp_path, name, kind, size):
    assert main(["ca", "root", "--key", name, "--out", str(tmp_path)]) == 0
    key = load_pem_private_key((tmp_path / "root-key.pem").read_bytes(), None)
    assert isinstance(key, kind)
    assert key.key_size == size


def test_several_clusters_are_made_in_one_call_each_with_a_key_of_its_own(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1", "cluster2", "eu-west.3") == 0
    keys = set()
    for cluster in ("cluster1", "cluster2", "eu-west.3"):
        assert {path.name for path in (tmp_path / cluster).iterdir()} == SET
        keys.add((tmp_path / cluster / "ca-key.pem").read_bytes())
    assert len(keys) == 3


def test_each_set_is_one_that_istiod_takes(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1") == 0
    parts = read_directory_parts(tmp_path / "cluster1")
    verified = verify(KeyCertBundle.decode(parts), datetime.now(UTC))
    assert verified.bundle.roots[0].x509 == load(root / "root-cert.pem")
    assert not verified.warnings


def test_openssl_verifies_the_chain(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1") == 0
    files = [str(root / "root-cert.pem"), str(tmp_path / "cluster1/ca-cert.pem")]
    subprocess.run(["openssl", "verify", "-CAfile", *files], check=True, capture_output=True)


def test_the_chain_is_the_intermediate_and_then_the_root(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1") == 0
    made = tmp_path / "cluster1"
    joined = (made / "ca-cert.pem").read_bytes() + (root / "root-cert.pem").read_bytes()
    assert (made / "cert-chain.pem").read_bytes() == joined


def test_a_root_of_openssl_can_sign(tmp_path):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", "/O=Example/CN=Root", "-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", tmp_path / "root-key.pem", "-out", tmp_path / "root-cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    assert intermediate(tmp_path, tmp_path, "cluster1") == 0
    issuer = load(tmp_path / "cluster1/ca-cert.pem").issuer
    assert issuer == load(tmp_path / "root-cert.pem").subject


def test_keys_are_private_and_certificates_are_not(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1") == 0
    keys = [root / "root-key.pem", tmp_path / "cluster1/ca-key.pem"]
    others = [path for path in content(tmp_path) if path not in keys]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in others} == {0o644}


def test_keys_are_private_from_their_first_moment(tmp_path, monkeypatch):
    modes = {}
    create = os.open

    def watched(path, flags, mode=0o777, **kwargs):
        descriptor = create(path, flags, mode, **kwargs)
        if flags & os.O_CREAT:
            modes[Path(path).name] = (os.fstat(descriptor).st_mode & 0o777, flags & os.O_EXCL)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    make_root(tmp_path)
    assert modes["root-key.pem"] == (0o600, os.O_EXCL)


# What it tells


def test_it_tells_files_subject_fingerprint_and_expiry(root, tmp_path, capsys):
    assert intermediate(root, tmp_path, "cluster1") == 0
    shown = capsys.readouterr().out
    certificate = load(tmp_path / "cluster1/ca-cert.pem")
    for name in SET:
        assert str(tmp_path / "cluster1" / name) in shown
    assert "L=cluster1,CN=Intermediate CA,O=Istio" in shown
    bundle = KeyCertBundle.decode(read_directory_parts(tmp_path / "cluster1"))
    assert bundle.certificate.fingerprint in shown
    assert f"{certificate.not_valid_after_utc:%F}" in shown
    assert "PRIVATE KEY" not in shown


def test_json_tells_the_same_to_programs(root, tmp_path, capsys):
    assert intermediate(root, tmp_path, "a", "b", "--format", "json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], second["name"]) == ("a", "b")
    assert {(Path(each["path"]).name, each["mode"]) for each in first["files"]} == {
        (name, "0600" if name == "ca-key.pem" else "0644") for name in SET
    }
    assert first["certificate"]["subject"] == "L=a,CN=Intermediate CA,O=Istio"
    assert len(first["certificate"]["sha256"]) == 64
    assert first["clampedToRoot"] is False
    assert first["findings"] == []


def test_a_warning_of_verification_is_shown(root, tmp_path, capsys):
    assert intermediate(root, tmp_path, "cluster1", "--days", "1") == 0
    assert "warning" in capsys.readouterr().out


# Expiry


def test_an_intermediate_never_outlives_its_root_and_says_so(tmp_path, capsys):
    make_root(tmp_path, "--days", "30")
    assert intermediate(tmp_path, tmp_path, "cluster1") == 0
    dates = [load(tmp_path / p) for p in ("root-cert.pem", "cluster1/ca-cert.pem")]
    assert dates[0].not_valid_after_utc == dates[1].not_valid_after_utc
    assert "with its root: fewer than --days asks for" in capsys.readouterr().out


def test_a_root_of_as_many_days_is_nothing_to_talk_about(root, tmp_path, capsys):
    assert intermediate(root, tmp_path, "cluster1") == 0
    assert "with its root" not in capsys.readouterr().out


def test_an_intermediate_can_be_shorter_than_its_root(root, tmp_path):
    assert intermediate(root, tmp_path, "cluster1", "--days", "90") == 0
    certificate = load(tmp_path / "cluster1/ca-cert.pem")
    lived = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lived == timedelta(days=90)


@pytest.mark.parametrize("days", ["0", "-1", "36501", "soon"])
def test_days_that_make_no_certificate_are_refused(tmp_path, refused, days):
    assert "--days" in refused(64, "ca", "root", "--out", tmp_path, f"--days={days}")


# Names


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "", "a b", "x" * 64, "a\n"])
def test_a_name_that_is_no_directory_is_refused(root, tmp_path, refused, name):
    said = refused(64, "ca", "intermediate", "--root", root, "--out", tmp_path / "o", "good", name)
    assert "cannot be a cluster's name" in said
    assert not (tmp_path / "o").exists()


def test_a_cluster_named_twice_is_refused(root, tmp_path, refused):
    said = refused(64, "ca", "intermediate", "--root", root, "--out", tmp_path, "a", "b", "a")
    assert "named twice" in said


def test_an_unknown_kind_of_key_is_refused_with_the_known_ones(tmp_path, refused):
    assert "ec256" in refused(64, "ca", "root", "--out", tmp_path, "--key", "rsa512")


# What exists already


def test_an_existing_root_is_left_as_it_is(root, refused):
    before = content(root)
    assert "exists already" in refused(73, "ca", "root", "--out", root)
    assert content(root) == before


def test_one_existing_file_stops_all_clusters(root, tmp_path, refused):
    (tmp_path / "out/b").mkdir(parents=True)
    (tmp_path / "out/b/root-cert.pem").write_text("mine")
    said = refused(73, *intermediates(root, tmp_path / "out", "a", "b"))
    assert str(tmp_path / "out/b/root-cert.pem") in said
    assert "--force" in said
    assert not (tmp_path / "out/a").exists()


def test_a_link_that_leads_nowhere_counts_as_existing(root, tmp_path, refused):
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/a/ca-key.pem").symlink_to(tmp_path / "elsewhere")
    refused(73, *intermediates(root, tmp_path / "out", "a"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch, refused):
    def appear(paths):
        paths[1].write_text("mine")

    monkeypatch.setattr(ca, "refuse_existing", appear)
    refused(73, "ca", "root", "--key", "ec256", "--out", tmp_path)
    assert content(tmp_path) == {tmp_path / "root-cert.pem": b"mine"}


def test_force_replaces_the_whole_set(root, tmp_path):
    assert intermediate(root, tmp_path / "out", "a") == 0
    before = content(tmp_path / "out")
    assert intermediate(root, tmp_path / "out", "a", "--force") == 0
    after = content(tmp_path / "out")
    assert before.keys() == after.keys()
    assert {path.name for path in after if before[path] == after[path]} == {"root-cert.pem"}
    verify(KeyCertBundle.decode(read_directory_parts(tmp_path / "out/a")), datetime.now(UTC))
    assert (tmp_path / "out/a/ca-key.pem").stat().st_mode & 0o777 == 0o600


def test_force_replaces_a_link_and_not_what_it_leads_to(root, tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "out/a/ca-key.pem").symlink_to(tmp_path / "elsewhere")
    assert intermediate(root, tmp_path / "out", "a", "--force") == 0
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "out/a/ca-key.pem").is_symlink()


def test_force_that_fails_leaves_the_old_set(root, tmp_path, refused, monkeypatch):
    assert intermediate(root, tmp_path / "out", "a") == 0
    before = content(tmp_path / "out")
    _fill_disk_after(monkeypatch, files=3)
    assert "No space left" in refused(73, *intermediates(root, tmp_path / "out", "a", "--force"))
    assert content(tmp_path / "out") == before


def test_force_does_not_replace_a_directory(root, tmp_path, refused):
    assert intermediate(root, tmp_path / "out", "a") == 0
    (tmp_path / "out/a/root-cert.pem").unlink()
    (tmp_path / "out/a/root-cert.pem").mkdir()
    before = content(tmp_path / "out")
    said = refused(73, *intermediates(root, tmp_path / "out", "a", "--force"))
    assert "Is a directory" in said
    assert content(tmp_path / "out") == before


# What cannot be written


def test_a_disk_that_fills_up_leaves_no_half_set(root, tmp_path, refused, monkeypatch):
    _fill_disk_after(monkeypatch, files=5)
    said = refused(73, *intermediates(root, tmp_path / "out", "a", "b"))
    assert "No space left" in said
    assert content(tmp_path / "out") == {}


def test_an_interruption_leaves_no_half_set(root, tmp_path, monkeypatch):
    _fail_after(monkeypatch, 2, KeyboardInterrupt())
    assert intermediate(root, tmp_path / "out", "a") == 130
    assert content(tmp_path / "out") == {}


def test_an_output_that_is_a_file_is_an_output_error(root, tmp_path, refused):
    (tmp_path / "out").write_text("mine")
    assert str(tmp_path / "out") in refused(73, *intermediates(root, tmp_path / "out", "a"))


# Roots that cannot sign


@pytest.mark.parametrize("name", ["root-key.pem", "root-cert.pem"])
def test_a_root_without_one_of_its_files_is_no_root(root, tmp_path, refused, name):
    (root / name).unlink()
    assert f"There is no {root / name}" in refused(66, *intermediates(root, tmp_path / "o", "a"))


def test_a_root_directory_that_does_not_exist_is_told(tmp_path, refused):
    assert "There is no" in refused(66, *intermediates(tmp_path / "none", tmp_path / "o", "a"))


def test_a_root_that_cannot_be_read_is_told(tmp_path, refused):
    (tmp_path / "root-key.pem").mkdir()
    said = refused(77, *intermediates(tmp_path, tmp_path / "o", "a"))
    assert "cannot be read" in said


@pytest.mark.parametrize(
    ("knobs", "code"),
    [
        ({"not_after": NOW - timedelta(days=1)}, "certificate-expired"),
        ({"not_before": NOW + timedelta(days=1)}, "certificate-not-yet-valid"),
        ({"ca": False}, "not-a-ca"),
    ],
)
def test_a_root_that_is_not_a_valid_ca_is_refused(tmp_path, refused, knobs, code):
    store_root(tmp_path / "mesh", material.make_root(**{**VALID, **knobs}))
    said = refused(65, *intermediates(tmp_path / "mesh", tmp_path / "o", "a"))
    assert f"The root in {tmp_path / 'mesh'} cannot sign" in said
    assert code in said
    assert not (tmp_path / "o").exists()


def test_a_key_that_is_not_the_roots_is_refused(tmp_path, refused):
    other = material.make_root(**VALID)
    store_root(tmp_path, material.make_root(**VALID), key=other.key_pem)
    assert "key-mismatch" in refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))


def test_a_key_that_is_no_pem_is_refused_without_being_shown(tmp_path, refused):
    store_root(tmp_path, material.make_root(**VALID), key=b"canary-of-a-key")
    assert "canary" not in refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))


def test_an_intermediate_is_no_root(tmp_path, refused):
    middle = material.make_root(**VALID).middle(**VALID)
    store_root(tmp_path, middle)
    said = refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))
    assert "is not a root: 'CN=Root CA,O=Istio' issued it" in said


def test_a_root_that_allows_no_intermediate_is_refused(tmp_path, refused):
    store_root(tmp_path, material.make_root(**VALID, pathlen=0))
    said = refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))
    assert "It was not written" in said
    assert not (tmp_path / "o").exists()


def test_a_root_without_key_identifier_is_refused(tmp_path, refused):
    store_root(tmp_path, material.make_root(**VALID, ski=False))
    said = refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))
    assert "no subject key identifier" in said


def test_an_ed25519_root_is_refused(tmp_path, refused):
    key = ed25519.Ed25519PrivateKey.generate()
    store_root(tmp_path, material.make_root(**VALID, key=key))
    said = refused(65, *intermediates(tmp_path, tmp_path / "o", "a"))
    assert "neither RSA nor EC" in said


def test_what_is_written_has_no_repr_of_a_key(tmp_path):
    assert "canary" not in repr(newfiles.NewFile(tmp_path, b"canary", private=True))


def _fill_disk_after(monkeypatch, files):
    _fail_after(monkeypatch, files, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def _fail_after(monkeypatch, files, error):
    sync, left = os.fsync, iter(range(files))

    def fsync(descriptor):
        if next(left, None) is None:
            raise error
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
