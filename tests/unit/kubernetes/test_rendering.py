"""YAML for people, which is YAML: whatever it holds is read back as it was."""

from __future__ import annotations

import yaml as parser
from hypothesis import given, settings
from hypothesis import strategies as st

from certagent.kubernetes.rendering import yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "a\nb",
        "a\n \nb\n",
        "a\n\n",
        "\na\n",
        "a\n\n b\n",
        "yes",
        "No",
        "null",
        "~",
        "1e3",
        "0x1F",
        "1.20",
        "12",
        "10m",
        "a: b",
        "a:b",
        "- a",
        "#",
        "@a",
    ]
)
PLAIN = st.recursive(
    TEXT | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_a_document_is_read_back_as_it_was(document):
    assert parser.safe_load(yaml(document)) == (document or None)


def test_what_is_short_is_in_a_line_but_not_at_the_top():
    document = {"env": {"A": "b"}, "args": ["run"], "probe": {"get": {"port": 1}, "after": 2}}

    assert yaml(document) == ("env:\n  A: b\nargs: [run]\nprobe:\n  get: {port: 1}\n  after: 2\n")


def test_text_of_several_lines_is_shown_as_it_is():
    text = "a: 1\n\nb:\n  - c\n"

    assert yaml({"data": {"file": text}}) == ("data:\n  file: |\n    a: 1\n\n    b:\n      - c\n")


def test_a_remark_stands_beside_its_line():
    shown = yaml({"a": {"restart": "Always", "b": [1]}}, {"restart: Always": "it stays"})

    assert shown.splitlines()[1] == "  restart: Always".ljust(39) + "# it stays"


def test_versions_and_switches_stay_text():
    assert yaml({"a": "1.20", "b": "true", "c": True, "d": "10m"}) == (
        'a: "1.20"\nb: "true"\nc: true\nd: "10m"\n'
    )
