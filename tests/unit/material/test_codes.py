"""The list of codes is the list of codes that the material room can emit, no more and no less."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from certagent import material
from certagent.material.codes import ERRORS, WARNINGS

CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
ENCODINGS = {"utf-8", "latin-1"}


def test_every_code_in_the_source_is_listed_and_every_listed_code_is_in_the_source():
    modules = set(Path(material.__file__).parent.glob("*.py"))
    used = {
        node.value
        for module in modules
        if module.name != "codes.py"
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and CODE.fullmatch(node.value)
    }

    assert used - ENCODINGS == set(ERRORS) | set(WARNINGS)


def test_a_code_is_an_error_or_a_warning():
    assert not set(ERRORS) & set(WARNINGS)
