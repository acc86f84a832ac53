"""What all examples have in common: files that parse, commands that exist, links that lead on."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from certagent.cli.main import VERBS
from certagent.config.decoding import load
from tests.support.examples import EXAMPLES
from tests.support.process import certagent

PAGES = sorted(EXAMPLES.glob("*/README.md"))
FILES = sorted(EXAMPLES.glob("**/*.yaml"))
_FENCE = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def named(path):
    return str(path.relative_to(EXAMPLES))


def fenced(page, language):
    return [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]


def commands(page):
    """What is said after `certagent` in the page's shell blocks, up to the command's end."""
    for block in fenced(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for said in re.findall(r"(?:^|[|;&(] *)certagent ([^|;&>)]+)", line):
                yield shlex.split(said, comments=True)


ALL = sorted({tuple(words) for page in PAGES for words in commands(page)})


@pytest.fixture(scope="module")
def help_of():
    """What `--help` shows of a verb, asked once."""
    shown = {}

    def help_of_(*words):
        if words not in shown:
            done = certagent(*words, "--help")
            assert done.code == 0, done.stderr
            shown[words] = done.stdout
        return shown[words]

    return help_of_


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_parses(path):
    assert [each for each in yaml.safe_load_all(path.read_text()) if each]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/certagent.yaml")), ids=named)
def test_every_configuration_is_taken(path):
    assert load(str(path), {}).bundles


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_yaml_block_parses(page):
    for block in fenced(page, "yaml"):
        assert yaml.safe_load(block)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_a_verb_and_flags_that_exist(words, help_of):
    verb, *rest = words
    assert verb in VERBS
    forms = [each for each in rest[:1] if each in {"root", "intermediate", "setup"}]
    flags = [each.partition("=")[0] for each in rest if each.startswith("--")]
    shown = help_of(verb, *forms) if flags else ""

    assert [flag for flag in flags if flag not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_there_are_commands_to_look_at():
    assert len(ALL) > 20
