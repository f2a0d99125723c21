"""The proxies that the environment names for calls to providers."""

from __future__ import annotations

import contextlib
import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies_environment

import httpx

AUTHENTICATION_REQUIRED = 407
PORTS = {"http": 80, "https": 443}  # where an address names none
_WITH_PORT = re.compile(r"(\[.+\]|[^:]+):(\d+)")


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

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"the proxy at {self.scheme}://{_netloc(self.host, self.port)}"

    def connect_request(self, host: str, port: int) -> bytes:
        """Returns the head that asks for a tunnel to a server."""
        target = _netloc(host, port).encode("ascii")
        lines = [b"CONNECT %b HTTP/1.1" % target, b"host: " + target]
        if self.authorization:
            lines.append(b"proxy-authorization: " + self.authorization)
        return b"\r\n".join([*lines, b"", b""])


def refusal(proxy: Proxy | None) -> httpx.ProxyError:
    """Returns the error of a request that was answered by 407."""
    return httpx.ProxyError(f"{proxy or 'a proxy'} demands credentials (407)")


def find(url: httpx.URL) -> Proxy | None:
    """Returns the proxy for a server; None if it is asked directly.

    Raises `httpx.ProxyError` if the environment names one that is no HTTP proxy.
    """
    if is_loopback(url.host) or _is_excepted(url, getproxies_environment().get("no", "")):
        return None
    with contextlib.suppress(KeyError, ValueError):
        return _named_for(url.scheme)
    # Here, where no variable has a password: error trackers show them.
    raise httpx.ProxyError(f"what the environment names for {url.scheme} is no HTTP proxy")


def _named_for(scheme: str) -> Proxy | None:
    """Raises `KeyError` or `ValueError` for what is no HTTP proxy."""
    named = getproxies_environment()
    address = named.get(scheme) or named.get("all")
    if not address:
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    usual_port = PORTS[parts.scheme]
    # Of a password with an unquoted # or /, the beginning is taken for the host.
    if not parts.hostname or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("no host")
    authorization = _authorization(parts.username, parts.password)
    return Proxy(parts.scheme, parts.hostname, parts.port or usual_port, authorization)


def _authorization(username: str | None, password: str | None) -> bytes:
    if not username and not password:
        return b""
    words = (unquote_to_bytes(username or ""), unquote_to_bytes(password or ""))
    return b"Basic " + b64encode(b"%b:%b" % words)


def _is_excepted(url: httpx.URL, exceptions: str) -> bool:
    """Whether NO_PROXY names the host, or a domain or a network that it is in; it may do so with a
    port."""
    host = url.host
    for name in filter(None, (each.strip().lower() for each in exceptions.split(","))):
        if with_port := _WITH_PORT.fullmatch(name):
            name, port = with_port.groups()  # noqa: PLW2901  # what is left to compare
            if int(port) != (url.port or PORTS[url.scheme]):
                continue
        domain = name.removeprefix("*").removeprefix(".").strip("[]")
        if not domain or host == domain or host.endswith(f".{domain}"):
            return True
        with contextlib.suppress(ValueError):
            if ip_address(host) in ip_network(name, strict=False):
                return True
    return False


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
