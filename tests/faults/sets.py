"""What is pushed while something is wrong: good sets under one root, and one that is bad."""

from __future__ import annotations

from tests.support.material import make_root, new_key, private_key_pem

ROOT = make_root()
FIRST, SECOND, THIRD = (ROOT.intermediate().raw() for _ in range(3))
BAD = ROOT.intermediate().raw(private_key=private_key_pem(new_key()))
