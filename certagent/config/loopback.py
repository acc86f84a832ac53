"""Which addresses can only be this machine, or this pod."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Tell whether a host is loopback; of names only `localhost`, which nobody else resolves."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
