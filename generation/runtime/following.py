"""Who waits for a generation: awaits it whole, reads its stream, or leaves before its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from generation.errors import AbandonedByClient, StaccatoError, TooManyInFlight
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
    if call.request.is_background:
        return
    # A client that sent an Idempotency-Key comes back for the answer.
    policy = runtime.current().settings.on_disconnect
    if policy == "cancel" or (policy == "auto" and not call.request.idempotency_key):
        call.abandon(AbandonedByClient("the client left before the answer was complete"))


async def begun(call: GenerationCall) -> bool:
    """Wait until phase 1 of a background generation has passed. Returns whether it goes on: if not,
    its task has the answer, or the error."""
    assert call.begun is not None
    waiting = asyncio.ensure_future(call.begun.wait())
    try:
        await asyncio.wait({waiting, call.task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return not call.task.done()


async def ended(call: GenerationCall) -> None:
    """Wait for its row, whatever becomes of it."""
    with contextlib.suppress(StaccatoError):
        await asyncio.shield(call.task)
