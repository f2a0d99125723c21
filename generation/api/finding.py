"""A generation by its id: under way in this process, or in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.api import auth
from generation.errors import NotFound
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from uuid import UUID

    from generation.pipeline.call import GenerationCall
    from generation.records import Grant, StoredGeneration


async def find(grant: Grant, generation_id: UUID) -> GenerationCall | StoredGeneration:
    """Raises `NotFound`, in the same words whether there is such a generation or not."""
    now = runtime.current()
    call = now.find(generation_id)
    if call is not None and auth.covers(grant, call.request.user_id):
        return call
    row = await now.store.generations.read(generation_id)
    if row is not None and auth.covers(grant, row.user_id):
        return row
    raise NotFound("there is no such generation")
