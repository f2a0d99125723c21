"""Who waits for a generation: awaits it whole, reads its stream, or leaves before its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from generation.errors import AbandonedByClient, TooManyInFlight
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.relay import Reader
    from generation.records import Generation

READERS = 100  # of one stream


async def whole(call: GenerationCall) -> Generation:
    """Await the answer. Raises the generation's error, or `TooManyInFlight`."""
    reader = reader_of(call)  # None, unless this request has joined a stream
    try:
        while reader is not None and await reader.read():
            pass
        return await asyncio.shield(call.task)
    finally:
        if reader is not None:
            reader.close()
        leave(call)


def reader_of(call: GenerationCall) -> Reader | None:
    """Returns None for an answer that is wanted whole. Raises `TooManyInFlight`."""
    if call.relay is None:
        return None
    if len(call.relay.readers) >= READERS:
        raise TooManyInFlight(f"{READERS} clients follow this generation", retry_after=1)
    return call.relay.reader()


def leave(call: GenerationCall) -> None:
    """If a generation's last client leaves before its end, do as STACCATO_ON_DISCONNECT says."""
    if call.task.done() or (call.relay is not None and call.relay.readers):
        return
    # A client that sent an Idempotency-Key comes back for the answer.
    policy = runtime.current().settings.on_disconnect
    if policy == "cancel" or (policy == "auto" and not call.request.idempotency_key):
        call.abandon(AbandonedByClient("the client left before the answer was complete"))
