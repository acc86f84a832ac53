"""The command line: verbs, exit codes, and the form of every message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from certagent import __version__
from certagent.cli import main as cli
from certagent.cli.show import days_left
from tests.support.material import NOW, files, make_root, new_key, private_key_pem
from tests.support.process import COMMAND, certagent, environment


@pytest.fixture(scope="module")
def ca():
    return make_root().intermediate()


@pytest.fixture
def certs(tmp_path, ca):
    for name, data in files(ca.raw()).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


class TestMain:
    def test_the_version_is_shown(self):
        done = certagent("--version")

        assert (done.code, done.stdout) == (0, f"certagent {__version__}\n")

    def test_help_names_every_verb_and_exit_code(self):
        shown = certagent("--help").stdout

        assert all(verb in shown for verb in cli.VERBS)
        assert all(code in shown for code in ("64", "65", "66", "69", "70", "73", "77", "78"))

    @pytest.mark.parametrize("verb", cli.VERBS)
    def test_every_verb_has_help(self, verb):
        done = certagent(verb, "--help")

        assert done.code == 0
        assert f"usage: certagent {verb}" in done.stdout

    @pytest.mark.parametrize("words", [[], ["nope"], ["check"], ["run", "--nope"]])
    def test_a_wrong_command_line_is_one_message_and_64(self, words):
        done = certagent(*words)

        assert done.code == 64
        assert done.stderr.startswith("certagent: ")
        assert len(done.stderr.splitlines()) == 2

    @pytest.mark.parametrize(
        ("words", "environ"),
        [
            (["nope", "--log-format", "json"], {}),
            (["run", "--nope", "--log-format=json"], {}),
            (["run"], {"CERTAGENT_LOG_FORMAT": "json"}),
        ],
    )
    def test_with_json_an_error_is_one_object_even_before_the_configuration_is_read(
        self, words, environ
    ):
        done = certagent(*words, **environ)

        assert done.code in {64, 78}
        (record,) = done.log
        assert record["code"] == done.code
        assert record["message"]

    def test_a_bug_is_70_with_a_traceback_to_report(self, monkeypatch, capsys):
        monkeypatch.setattr(cli, "_parser", lambda _: 1 / 0)

        assert cli.main(["check", "."]) == 70
        told = capsys.readouterr().err
        assert "bug in certagent" in told
        assert "ZeroDivisionError" in told

    def test_an_interrupt_is_130(self, monkeypatch):
        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "_parser", interrupted)

        assert cli.main(["check", "."]) == 130

    def test_a_reader_that_goes_away_is_no_bug(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*COMMAND, "schema"],
            env=environment({}),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        os.close(writing)

        assert done.returncode == 141
        assert done.stderr == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
    @pytest.mark.parametrize("word", ["schema", "--help", "--version"])
    def test_output_that_cannot_be_written_is_73(self, word):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*COMMAND, word],
                env=environment({"PYTHONUNBUFFERED": None}),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=30,
                check=False,
            )

        assert done.returncode == 73
        assert "No space left" in done.stderr

    @pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
    def test_streams_that_are_closed_fail_nothing(self, certs, tmp_path, closed):
        command = " ".join([*COMMAND, "init", closed])
        environ = {"CERTAGENT_SOURCE": f"file:{certs}", "ROOT_CA_DIR": tmp_path / "out"}
        done = subprocess.run(
            ["sh", "-c", command], env=environment(environ), timeout=30, check=False
        )

        assert done.returncode == 0
        assert (tmp_path / "out" / "ca-key.pem").exists()

    def test_with_json_in_the_file_its_own_faults_are_json(self, tmp_path):
        (tmp_path / "certagent.yaml").write_text("log: {format: json}\nrefresh: {interval: 3}\n")

        done = certagent("run", "--config", tmp_path / "certagent.yaml")

        assert done.code == 78
        assert done.log[0]["code"] == 78

    def test_it_runs_as_a_module_too(self):
        done = subprocess.run(
            [sys.executable, "-m", "certagent", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

        assert done.stdout == f"certagent {__version__}\n"

    def test_the_schema_is_json(self):
        assert json.loads(certagent("schema").stdout)["title"] == "certagent configuration"


class TestCheck:
    def test_a_good_set_is_shown_as_a_tree(self, certs, ca):
        done = certagent("check", certs)

        assert done.code == 0
        assert "istiod would take this set" in done.stdout
        assert "CN=Root CA,O=Istio  [root-cert.pem]" in done.stdout
        assert "└─ L=cluster1,CN=Intermediate CA,O=Istio  [ca-cert.pem]" in done.stdout
        assert ca.fingerprint in done.stdout

    def test_a_chain_of_three_is_shown_in_its_order(self, tmp_path):
        raw = make_root().middle().intermediate().raw()
        for name, data in files(raw).items():
            (tmp_path / name).write_bytes(data)

        lines = certagent("check", tmp_path).stdout.splitlines()

        assert "Root CA" in lines[1]
        assert lines[2].startswith("  └─ CN=Middle CA")
        assert lines[3].startswith("     └─ L=cluster1")

    def test_as_json_it_tells_the_same(self, certs, ca):
        done = certagent("check", certs, "--format", "json")

        told = json.loads(done.stdout)
        assert told["ok"] is True
        assert told["certificate"]["sha256"] == ca.fingerprint
        assert "BEGIN" not in done.stdout

    def test_findings_have_code_certificate_and_hint(self, certs, ca):
        (certs / "ca-key.pem").write_bytes(private_key_pem(new_key()))

        done = certagent("check", certs)

        assert done.code == 65
        assert "REFUSED" in done.stdout
        assert "error key-mismatch (private_key)" in done.stdout
        assert ca.fingerprint in done.stdout

    def test_findings_as_json(self, certs):
        (certs / "ca-key.pem").write_bytes(private_key_pem(new_key()))

        told = json.loads(certagent("check", certs, "--format", "json").stdout)

        assert told["ok"] is False
        assert told["findings"][0]["code"] == "key-mismatch"

    def test_a_warning_does_not_refuse(self, certs):
        (certs / "ca-key.pem").write_bytes((certs / "ca-key.pem").read_bytes() * 2)

        done = certagent("check", certs)

        assert done.code == 0
        assert "warning " in done.stdout


class TestStatus:
    @pytest.fixture
    def published(self, certs, tmp_path):
        target = tmp_path / "published"
        done = certagent("init", CERTAGENT_SOURCE=f"file:{certs}", ROOT_CA_DIR=target)
        assert done.code == 0, done.stderr
        return target

    def test_it_shows_chain_expiry_version_and_since_when(self, published, ca):
        done = certagent("status", published)

        assert done.code == 0
        for expected in ("days left", "└─", ca.fingerprint, "version  sha256:", "since "):
            assert expected in done.stdout

    def test_without_arguments_it_shows_root_ca_dir(self, published):
        assert certagent("status", ROOT_CA_DIR=published).code == 0

    def test_with_a_configuration_it_shows_every_bundle(self, published, tmp_path):
        config = tmp_path / "certagent.yaml"
        config.write_text(
            "bundles:\n"
            "- name: one\n"
            "  source: {files: {directory: /x}}\n"
            f"  output: {{directory: {published}}}\n"
            "- name: two\n"
            "  source: {files: {directory: /x}}\n"
            f"  output: {{directory: {tmp_path / 'empty'}}}\n"
        )

        done = certagent("status", "--config", config)

        assert done.code == 66
        assert f"one: {published}: good" in done.stdout
        assert f"two: {tmp_path / 'empty'}: nothing is published" in done.stdout

    def test_as_json_it_tells_the_record_too(self, published):
        (told,) = json.loads(certagent("status", published, "--format", "json").stdout)

        assert told["exitCode"] == 0
        assert told["version"].startswith("sha256:")
        assert told["publishedAt"].startswith("20")
        assert told["certificate"]["subject"]

    def test_a_directory_that_others_wrote_is_shown_as_well(self, certs):
        assert "good" in certagent("status", certs).stdout

    def test_a_set_that_is_no_longer_good_is_65(self, tmp_path):
        expired = make_root().intermediate(not_after=NOW).raw()
        for name, data in files(expired).items():
            (tmp_path / name).write_bytes(data)

        done = certagent("status", tmp_path)

        assert done.code == 65
        assert "certificate-expired" in done.stdout

    def test_an_unreadable_one_says_why(self, tmp_path):
        (tmp_path / "file").write_text("")

        done = certagent("status", tmp_path / "file")

        assert done.code in {66, 73}
        assert "not a directory" in done.stdout.lower()


class TestShown:
    def test_a_terminal_that_cannot_show_a_character_fails_nothing(self, certs):
        done = certagent("check", certs, PYTHONIOENCODING="ascii")

        assert done.code == 0
        assert "\\u2514" in done.stdout

    def test_under_two_days_the_hours_count(self):
        assert days_left(NOW + timedelta(hours=47, minutes=5), NOW) == "47 hours left"

    def test_what_has_expired_says_so(self):
        assert days_left(NOW - timedelta(days=3), NOW) == "EXPIRED 3 days ago"

    def test_a_root_beside_the_path_is_shown_as_such(self, tmp_path):
        root = make_root()
        raw = root.intermediate().raw(roots=(root, make_root(subject="CN=Other")))
        for name, data in files(raw).items():
            (tmp_path / name).write_bytes(data)

        assert "CN=Other  [root-cert.pem (not on the path)]" in certagent("check", tmp_path).stdout
