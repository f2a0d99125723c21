"""Django's own handler, as the service uses it."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiref.sync import SyncToAsync

from generation.asgi.handlers import StockHandler
from generation.asgi.head import Head
from generation.asgi.request import HEAD


async def test_a_page_enters_its_thread_once_from_its_session_to_its_html(monkeypatch):
    """Each time it enters or leaves, it waits for the event loop, and the loop for other pages."""
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/admin/login/"}
    scope |= {"scheme": "https", "query_string": b"", "headers": [(b"host", b"localhost")]}
    scope[HEAD] = Head(scope)
    received = iter([{"type": "http.request", "body": b""}])
    sent = []
    entered = []
    enter = SyncToAsync.__call__

    async def receive():
        for message in received:
            return message
        return await asyncio.Event().wait()

    async def send(message) -> None:
        sent.append(message)

    async def count(self, *args, **kwargs):
        entered.append(getattr(self.func, "__qualname__", repr(self.func)))
        return await enter(self, *args, **kwargs)

    handler = StockHandler()
    monkeypatch.setattr(SyncToAsync, "__call__", count)
    await handler(scope, receive, send)
    assert sent[0]["status"] == 200
    # The six others: two signals of Django's, and what comes before static files.
    assert len(entered) <= 7, entered
