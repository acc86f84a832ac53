"""What to do about a failure on the way to Vault."""

from __future__ import annotations

from certagent.sources.http.failures import Advice

ADVICE = Advice(
    service="Vault",
    reach="Check vault.address (VAULT_ADDR), network policies, and what captures traffic here.",
    trust="Set vault.caFile (VAULT_CACERT) to the CA that signed it; check its names and dates.",
    proxy="Set HTTPS_PROXY to http://HOST:PORT, or name Vault's host in NO_PROXY.",
    redirect="Set vault.address to the cluster's own address.",
    elsewhere="Something else than Vault answers there: see vault.address.",
    slow="It is overloaded or hangs; vault.requestTimeout says how long to wait.",
    files="Check vault.caFile (VAULT_CACERT) and the files of vault.auth.",
    tls="Does it speak TLS 1.2 or later, and are vault.caFile and the files of vault.auth PEM?",
)
