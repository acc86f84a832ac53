"""A Vault that answers logins and secrets as it is told: what a real one seldom does."""

from __future__ import annotations

from tests.support.scripted import ScriptedServer, answer

LEASE = 900
"""Seconds for which each login is good."""

METADATA = {
    "version": 5,
    "created_time": "2026-01-02T03:04:05.123456789Z",
    "deletion_time": "",
    "destroyed": False,
}
FIELDS = {"ca_key": "key", "ca_cert": "cert", "cert_chain": "chain", "root_cert": "root"}


class Vault(ScriptedServer):
    """Answers logins with `login`, the rest with `read`; what is revoked is in `revoked`."""

    def __init__(self):
        super().__init__(self._answer)
        self.logins = 0
        self.login = None
        self.read = answer(200, {"data": {"data": FIELDS, "metadata": METADATA}})
        self.revoked = []

    def _answer(self, asked, _):
        if asked.path.endswith("/login"):
            self.logins += 1
            auth = {"client_token": f"token-{self.logins}", "lease_duration": LEASE}
            return self.login or answer(200, {"auth": auth})
        if asked.path.endswith("revoke-self"):
            self.revoked.append(asked.headers["x-vault-token"])
            return answer(204)
        return self.read(asked) if callable(self.read) else self.read
