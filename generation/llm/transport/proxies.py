"""The proxies that the environment names for calls to providers."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies_environment

import httpx

AUTHENTICATION_REQUIRED = 407
_PORTS = {"http": 80, "https": 443}


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


@dataclass(frozen=True, slots=True)
class Proxy:
    scheme: str
    host: str
    port: int
    # The value of its header; b"" without credentials.
    authorization: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"the proxy at {self.scheme}://{self.host}:{self.port}"

    def connect_request(self, host: str, port: int) -> bytes:
        """Returns the head that asks for a tunnel to a server."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1".encode("ascii"), b"host: " + target.encode("ascii")]
        if self.authorization:
            lines.append(b"proxy-authorization: " + self.authorization)
        return b"\r\n".join([*lines, b"", b""])


def refusal(proxy: Proxy | None) -> httpx.ProxyError:
    """Returns the error of a request that was answered by 407."""
    return httpx.ProxyError(f"{proxy or 'a proxy'} demands credentials (407)")


def find(scheme: str, host: str) -> Proxy | None:
    """Returns the proxy for a server; None if it is asked directly.

    Raises `httpx.ProxyError` if the environment names one that is no HTTP proxy.
    """
    named = getproxies_environment()
    url = named.get(scheme) or named.get("all")
    if not url or is_loopback(host) or _is_excepted(host, named.get("no", "")):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usual_port = _PORTS[parts.scheme]
        host, port = parts.hostname or "", parts.port or usual_port
    except (KeyError, ValueError):
        host = ""
    if not host:
        raise httpx.ProxyError(f"what the environment names for {scheme} is no HTTP proxy")
    return Proxy(parts.scheme, host, port, _authorization(parts.username, parts.password))


def _authorization(username: str | None, password: str | None) -> bytes:
    if not username and not password:
        return b""
    words = (unquote_to_bytes(username or ""), unquote_to_bytes(password or ""))
    return b"Basic " + b64encode(b"%b:%b" % words)


def _is_excepted(host: str, exceptions: str) -> bool:
    """Whether NO_PROXY names the host, or a domain or a network that it is in."""
    for name in filter(None, (each.strip().lower() for each in exceptions.split(","))):
        domain = name.removeprefix("*").removeprefix(".")
        if not domain or host == domain or host.endswith(f".{domain}"):
            return True
        with contextlib.suppress(ValueError):
            if ip_address(host) in ip_network(name, strict=False):
                return True
    return False
