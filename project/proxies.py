"""Which proxies may say where a request comes from."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest


def trust_proxies(application: Any) -> Any:
    """Take the scheme and the client's address from X-Forwarded-… of a trusted proxy.

    The header is read from the right while the proxies are trusted; a client may have written
    whatever is left of that. uvicorn does the same for its own list of proxies; with ours, one
    setting works however the application is served.
    """
    if not settings.TRUSTED_PROXIES:
        return application
    return ProxyHeadersMiddleware(application, trusted_hosts=settings.TRUSTED_PROXIES)


def client_address(request: HttpRequest) -> str | None:
    """Returns the address for the lockout, without looking at headers; None if there is none.

    For IPv6 it is the /64 network's, because a single client has all addresses of one.
    """
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address) >> 64 << 64, 64)).network_address)
