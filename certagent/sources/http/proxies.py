"""The proxy on the way to a server, as the environment names it."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

from certagent.config.loopback import is_loopback
from certagent.sources.http.failures import ProxyUnusable

_SCHEMES = frozenset({"http", "https"})


def proxy_for(url: str) -> SplitResult | None:
    """Return the URL of the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names for a URL.

    For loopback there is none, like for Vault's own client (Go): plain http to a Vault agent in the
    pod would else leave it, with tokens and keys in the clear. NO_PROXY may hold names, addresses
    and networks. Raises `ProxyUnusable`.
    """
    if is_loopback(urlsplit(url).hostname or ""):
        return None
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # It knows what all forms of these variables mean.
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415 - where one is set

    named = select_proxy(url, get_environ_proxies(url))
    if not named:
        return None
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
    except ValueError as error:  # its text would quote the password
        raise ProxyUnusable("it is no URL") from error
    if proxy.scheme.lower() not in _SCHEMES:
        # Nothing here speaks it, whatever else is installed.
        raise ProxyUnusable(f"it speaks {proxy.scheme.lower()}, which is not supported")
    try:
        if not proxy.hostname or proxy.port == 0:
            raise ProxyUnusable("it names no host")
    except ValueError as error:
        raise ProxyUnusable("its port is not a number") from error
    return proxy
