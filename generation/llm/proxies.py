"""The proxies that the environment names for calls to providers."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import pyqwest

# The only way to tell pyqwest to ignore the environment: a proxy that no host goes through.
NONE = pyqwest.Proxy("http://127.0.0.1:9", no_proxy="*,0.0.0.0/0,::/0")  # * matches names


def is_loopback(host: str) -> bool:
    """Whether it is this machine: a proxy elsewhere would connect to itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def address(scheme: str) -> str:
    """The proxy for such URLs, without its credentials; '' where the environment names none."""
    named = getproxies_environment()
    url = named.get(scheme) or named.get("all") or ""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else ""
