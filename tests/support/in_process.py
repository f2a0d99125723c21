"""The application in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY
from uvicorn.server import ServerState

from generation.asgi import get_service
from generation.rollups.upkeep import Rollups
from generation.runtime import probe, startup
from generation.runtime.process import Runtime
from tests.support.service import Served
from tests.support.waiting import HANG_S


@contextlib.contextmanager
def quiet_runtimes():
    """A runtime that opens in the block does not inspect the database, and keeps no house.

    Each served process does both. Here they would take more of a core than most tests do, and
    their statements would run among those that a test counts, and meet the emptying of the tables.
    A busy machine is no reason to be unready.
    """

    async def nothing(*_args: Any) -> list[str]:
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "prepare", nothing)
        patch.setattr(Runtime, "tidy_up", nothing)
        patch.setattr(Rollups, "run", nothing)
        patch.setattr(probe, "TIMEOUT_S", HANG_S)
        yield


def in_process_client(host: str = "localhost") -> httpx.AsyncClient:
    application: Any = get_service()  # httpx spells the types of ASGI in its own way
    transport = httpx.ASGITransport(application, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


async def serve(
    application,
    *,
    method="POST",
    path="/api/v1/generate/1",
    query="",
    headers=(),
    body=b"",
    leaves=None,
) -> int | None:
    """One request without a client around it. Returns the response's status.

    The body never comes where it is None; the client leaves when the event `leaves` is set.
    """
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), *headers],
    }
    if body is not None:
        scope["headers"].append((b"content-length", b"%d" % len(body)))
    incoming: list[dict[str, Any]] = (
        [{"type": "http.request", "body": body}] if body is not None else []
    )
    status = []

    async def receive():
        if incoming:
            return incoming.pop()
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            status.append(message["status"])

    await application(scope, receive, send)
    return status[0] if status else None


class Here(Served):
    """The service in this process."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._counted = counted()

    @property
    def outcomes(self) -> Counter[str]:
        """What the requests since the start are counted as."""
        return counted() - self._counted


def counted() -> Counter[str]:
    """The samples of `staccato_requests_total`, by outcome."""
    samples = (sample for family in REGISTRY.collect() for sample in family.samples)
    return Counter(
        {
            sample.labels["outcome"]: int(sample.value)
            for sample in samples
            if sample.name == "staccato_requests_total"
        }
    )


@contextlib.asynccontextmanager
async def listening(application):
    """uvicorn in the test's own process, with its own protocol and no lifespan. Yields its port."""
    config = uvicorn.Config(application, http="httptools", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    protocol: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}),
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await server.wait_closed()
