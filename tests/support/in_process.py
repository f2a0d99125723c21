"""The application in the test's own process."""

from __future__ import annotations

import httpx

from generation.asgi import get_application


def in_process_client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(get_application(), raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")
