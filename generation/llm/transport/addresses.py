"""The addresses of hosts: those who ask for the same at the same time share one lookup."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TypeAlias

_KNOWN_S = 5.0  # that an answer is used again

Address: TypeAlias = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
_Lookup: TypeAlias = "asyncio.Future[list[Address]]"


class Addresses:
    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], _Lookup] = {}

    async def find(self, host: str, port: int) -> list[Address]:
        """Raises `OSError` if there is no such host. May be cancelled: others wait on."""
        try:  # without a thread
            flags = socket.AI_NUMERICHOST
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)  # type: ignore[return-value]  # typeshed has those of other families, too
        except socket.gaierror:
            pass
        lookup = self._lookups.get((host, port))
        if lookup is None:
            loop = asyncio.get_running_loop()
            asked = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            lookup = self._lookups[host, port] = loop.create_task(asked)  # type: ignore[arg-type]  # as above
            lookup.add_done_callback(partial(self._keep_for_a_while, (host, port)))
        return await asyncio.shield(lookup)

    async def aclose(self) -> None:
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def _keep_for_a_while(self, key: tuple[str, int], lookup: _Lookup) -> None:
        if lookup.cancelled() or lookup.exception() is not None:
            self._lookups.pop(key, None)
        else:
            lookup.get_loop().call_later(_KNOWN_S, self._lookups.pop, key, None)
