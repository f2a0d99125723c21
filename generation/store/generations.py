"""One generation as its row has it, for the caller who asks for it again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Uuid, bindparam, false, func, select

from generation.records import StoredGeneration
from generation.store import tables
from generation.store.claims import answer_of

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Executable

    from generation.database.engine import Database
    from generation.privacy.encryption import KeyRing
    from generation.store.tables import Tables


class Generations:
    """Reads rows of the log by their ids. `ring` reads their texts."""

    def __init__(self, database: Database, ring: KeyRing) -> None:
        self._database = database
        self._ring = ring
        self._statement = _statement(tables.load())

    async def read(self, generation_id: UUID) -> StoredGeneration | None:
        """Returns None where there is no such row; its texts may be gone or reduced.

        Raises `DatabaseUnavailable` or `AnswerUnreadable`.
        """
        rows = await self._database.read(self._statement, {"id": generation_id})
        if not rows:
            return None
        row = rows[0]
        return StoredGeneration(
            user_id=row.user_id,
            status=row.status,
            error_type=row.error_type,
            error=self._ring.read(generation_id, "error", row.error, row.encryption_key),
            generation=replace(answer_of(row, self._ring), replayed=False),
            is_verbatim=row.is_verbatim,
        )


def _statement(tables: Tables) -> Executable:
    """Both ids are compared with the parameter, so that each table's one partition is read."""
    log, body = tables.generation_log, tables.generation_body
    wanted = bindparam("id", type_=Uuid())
    texts = (
        func.coalesce(column, "").label(column.key)
        for column in (body.c.result, body.c.blocks, body.c.error, body.c.encryption_key)
    )
    # Of a held result, the blocks are reduced all the same.
    is_verbatim = (body.c.content == "full") | (body.c.result_held & (body.c.blocks == ""))
    return (
        select(
            log.c.id,
            log.c.user_id,
            log.c.status,
            log.c.error_type,
            log.c.stop_reason,
            log.c.input_tokens,
            log.c.output_tokens,
            log.c.provider,
            log.c.model,
            log.c.latency_ms,
            func.coalesce(is_verbatim, false()).label("is_verbatim"),
            *texts,
        )
        .outerjoin(body, (body.c.id == log.c.id) & (body.c.id == wanted))
        .where(log.c.id == wanted)
    )
