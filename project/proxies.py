"""Whose word is taken for where a request comes from."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest


def behind_trusted(application: Any) -> Any:
    """Take scheme and client's address from X-Forwarded-… where a trusted proxy sent them.

    Read from the right, as far as proxies are trusted: what stands left of that, the client may
    have written itself. uvicorn does the same for the proxies that it is told of; ours come on
    top of those, so that one place in the settings names them for every way to serve.
    """
    if not settings.TRUSTED_PROXIES:
        return application
    return ProxyHeadersMiddleware(application, trusted_hosts=settings.TRUSTED_PROXIES)


def client_address(request: HttpRequest) -> str | None:
    """For the lockout. No header is believed here; None where the server gave no address."""
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return None
