"""What a start leaves out, and that nothing misses it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys

import pytest

from certagent.runtime.loading import uncollected, uncompiled

NAMES = "cryptography.x509.name"


def loaded(name: str, source: str = "import re; pattern = re.compile(r'(a+)b', re.IGNORECASE)"):
    """Return the pattern of a module of this name."""
    module = {"__name__": name}
    exec(source, module)
    return module["pattern"]


class TestUncollected:
    def test_nothing_is_collected_meanwhile_and_what_there_is_stays_out_of_later_collections(self):
        before = gc.get_freeze_count()

        with uncollected():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]

        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(kept)

    def test_what_cannot_be_loaded_leaves_the_collector_running(self):
        with pytest.raises(ImportError), uncollected():
            raise ImportError

        assert gc.isenabled()


class TestUncompiled:
    def test_the_patterns_of_the_module_are_compiled_when_they_are_used(self):
        with uncompiled("theirs"):
            pattern = loaded("theirs")

        assert not isinstance(pattern, re.Pattern)
        assert pattern.match("AAB").group(1) == "AA"
        assert pattern.sub("-", "xaby") == "x-y"
        assert pattern.flags & re.IGNORECASE

    def test_those_of_others_are_compiled_at_once(self):
        with uncompiled("theirs"):
            assert isinstance(loaded("others"), re.Pattern)

    def test_afterwards_all_are(self):
        with pytest.raises(ImportError), uncompiled("theirs"):
            raise ImportError

        assert isinstance(loaded("theirs"), re.Pattern)

    def test_it_spares_a_start_the_pattern_that_it_is_there_for(self):
        """Otherwise the module has changed, and the agent need not name it any more."""
        script = f"""
import re
from certagent.runtime.loading import uncompiled
with uncompiled({NAMES!r}):
    from cryptography import x509
from cryptography.x509 import name
assert not isinstance(name._RFC4514NameParser._STRING_RE, re.Pattern)
text = r"CN=Root \\, CA,O=Istio+OU=\\c3\\a4"
assert x509.Name.from_rfc4514_string(text).rfc4514_string() == "CN=Root \\\\, CA,O=Istio+OU=\\u00e4"
"""
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
