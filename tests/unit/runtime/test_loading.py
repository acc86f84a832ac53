"""What a start leaves out, and that nothing misses it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from copy import copy

import pytest

from certagent.runtime.loading import lean_msgspec, sparingly

SPARED = "platform"
"""A module whose patterns are left."""

USES = {
    "cryptography.x509.name": """
from cryptography import x509
text = r"CN=Root \\, CA,O=Istio+OU=\\c3\\a4"
assert x509.Name.from_rfc4514_string(text).rfc4514_string() == "CN=Root \\\\, CA,O=Istio+OU=\\u00e4"
""",
    "certagent.material.names": """
from certagent.material.names import matchable, readable
from cryptography.x509 import DNSName, UniformResourceIdentifier
assert readable(UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/b"))
assert not readable(UniformResourceIdentifier("spiffe://%zz"))
assert matchable(DNSName("a-b.example"))
""",
    "cryptography.hazmat.primitives.serialization.ssh": """
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
format_ = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH)
pem = Ed25519PrivateKey.generate().private_bytes(*format_, serialization.NoEncryption())
serialization.load_ssh_private_key(pem, None)
""",
    "email.header": """
from email.header import decode_header
assert decode_header("=?utf-8?q?=C3=A4?=") == [(b"\\xc3\\xa4", "utf-8")]
""",
    "encodings.idna": 'assert "\u00e4.example".encode("idna") == b"xn--4ca.example"',
    "locale": 'import locale; assert locale.format_string("%d%%", 7) == "7%"',
    "logging": """
import logging
for style, form in (("%", "%(name)s"), ("{", "{name!r:>9}"), ("$", "${name}")):
    logging.Formatter(form, style=style)
    try:
        logging.Formatter("none", style=style)
    except ValueError:
        continue
    raise AssertionError(style)
""",
    "platform": """
import platform
assert platform.python_implementation() == "CPython" and platform.libc_ver()
""",
    "string": 'import string; assert string.Template("$a ${b} $$").substitute(a=1, b=2) == "1 2 $"',
    "textwrap": """
import textwrap
assert textwrap.fill("one two-three", 9) == "one two-\\nthree"
assert textwrap.dedent("  a\\n   b") == "a\\n b"
""",
    "tokenize": """
import io, tokenize
lines = io.BytesIO(b"# coding: latin-1\\nx = 1\\n")
assert tokenize.detect_encoding(lines.readline)[0] == "iso-8859-1"
""",
}
"""For each module what uses its patterns."""

SCRIPT = """
import re, sys
from certagent.runtime.loading import _SELDOM_USED, _Uncompiled, sparingly
with sparingly():
    from certagent.cli.main import main
    import certagent.agent, {name}
assert {name!r} in _SELDOM_USED
module = sys.modules[{name!r}]
holders = [module, *(each for each in vars(module).values() if isinstance(each, type))]
kinds = {{type(each) for holder in holders for each in vars(holder).values()}}
assert _Uncompiled in kinds, "it does not compile any: it need not be named"
"""


def loaded(name: str, source: str = "import re; pattern = re.compile(r'(a+)b', re.IGNORECASE)"):
    """Return the pattern of a module of this name."""
    module = {"__name__": name}
    exec(source, module)
    return module["pattern"]


class TestCollections:
    def test_nothing_is_collected_meanwhile_and_what_there_is_stays_out_of_later_collections(self):
        before = gc.get_freeze_count()

        with sparingly():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]

        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(kept)

    def test_what_cannot_be_loaded_leaves_the_collector_running(self):
        with pytest.raises(ImportError), sparingly():
            raise ImportError

        assert gc.isenabled()


class TestPatterns:
    def test_those_of_a_module_that_is_named_are_compiled_when_they_are_used(self):
        with sparingly():
            pattern = loaded(SPARED)

        assert not isinstance(pattern, re.Pattern)
        assert pattern.match("AAB").group(1) == "AA"
        assert pattern.sub("-", "xaby") == "x-y"
        assert pattern.flags & re.IGNORECASE

    def test_one_can_be_copied_before_it_is_used(self):
        with sparingly():
            pattern = loaded(SPARED)

        assert copy(pattern).match("AAB").group(1) == "AA"

    def test_those_of_others_are_compiled_at_once(self):
        with sparingly():
            assert isinstance(loaded("others"), re.Pattern)

    def test_afterwards_all_are(self):
        with pytest.raises(ImportError), sparingly():
            raise ImportError

        assert isinstance(loaded(SPARED), re.Pattern)

    @pytest.mark.parametrize("name", USES)
    def test_a_module_that_is_named_works_all_the_same(self, name):
        script = SCRIPT.format(name=name) + USES[name]

        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class TestMsgspec:
    def python(self, script, **options):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{script}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )
        return done.stdout.split()

    LEAN = "from certagent.runtime.loading import lean_msgspec; lean_msgspec()\n"

    def test_it_is_loaded_without_typing_extensions_which_others_get_all_the_same(self):
        script = """
print("msgspec" in sys.modules, "typing_extensions" in sys.modules)
import typing_extensions
print(hasattr(typing_extensions, "Buffer"))
"""

        assert self.python(self.LEAN + script) == ["True", "False", "True"]

    def test_it_decodes_and_encodes_so(self):
        script = """
import msgspec
from typing import Annotated
class Port(msgspec.Struct):
    number: Annotated[int, msgspec.Meta(le=65535)]
print(msgspec.json.decode(b'{"number": 7}', type=Port).number)
print(msgspec.json.schema(Port)["$ref"], msgspec.convert({"number": 8}, Port).number)
"""

        assert self.python(self.LEAN + script) == ["7", "#/$defs/Port", "8"]

    def test_one_that_cannot_do_without_is_loaded_as_it_is(self, tmp_path):
        (tmp_path / "msgspec.py").write_text("import typing_extensions; needy = True")
        script = f"sys.path.insert(0, {str(tmp_path)!r})\n{self.LEAN}"

        assert self.python(f"{script}import msgspec; print(msgspec.needy)") == ["True"]

    def test_what_is_loaded_already_stays(self):
        import typing_extensions  # noqa: PLC0415 - what the test is about

        lean_msgspec()

        assert sys.modules["typing_extensions"] is typing_extensions
