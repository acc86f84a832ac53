"""A Vault that takes its time, for what a real one cannot be made to do."""

from __future__ import annotations

import threading

from tests.support.material import fields, make_root
from tests.support.scripted import ScriptedServer, answer


class SlowVault(ScriptedServer):
    """Holds back what it answers to the path in `slow`, until `released`."""

    def __init__(self, slow):
        super().__init__(self._answer)
        self.slow = slow
        self.released = threading.Event()
        metadata = {"version": 2, "created_time": "2026-01-02T03:04:05Z"}
        data = {"data": fields(make_root().intermediate().raw()), "metadata": metadata}
        self._secret = answer(200, {"data": data})

    def paths(self):
        return [asked.path.rpartition("/")[2].partition("?")[0] for asked in self.asked]

    def _answer(self, asked, _):
        if self.slow in asked.path:
            self.released.wait(20)
        if asked.path.endswith("/login"):
            return answer(200, {"auth": {"client_token": "a-token", "lease_duration": 900}})
        if "/internal/" in asked.path:
            mount = {"type": "kv", "path": "kv/", "options": {"version": "2"}}
            return answer(200, {"data": mount})
        return answer(204) if asked.path.endswith("revoke-self") else self._secret
