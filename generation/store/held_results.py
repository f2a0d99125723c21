"""Results that are kept whole for a day, although the content policy says otherwise: a repetition
of their request gets them. Then they are reduced."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Integer, bindparam, case, false, select, update

from generation.privacy.policy import HeldResult
from generation.store import tables
from generation.store.claims import KEPT
from generation.store.documents import as_document, rows_of
from generation.store.logs import oldest_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Executable

    from generation.database.engine import Database
    from generation.store.tables import Tables

ROWS = 100  # in one statement
SLACK = timedelta(hours=1)  # ids are by the clocks of processes, keys by the database's


class HeldResults:
    """The results that are due, of all processes."""

    def __init__(self, database: Database, kept: timedelta = KEPT + SLACK) -> None:
        self._database = database
        known = tables.load()
        self._find_statement = _find_statement(known, kept)
        self._settle_statement = _settle_statement(known)

    async def settle(
        self, reduce: Callable[[Sequence[HeldResult]], list[HeldResult]], rows: int = ROWS
    ) -> None:
        """Replace the results that are due by what `reduce` returns, this many in one statement.

        Raises `DatabaseUnavailable`.
        """
        found = rows
        while found == rows:
            held = [
                HeldResult(*row)
                for row in await self._database.run(self._find_statement, {"rows": rows})
            ]
            found = len(held)
            if held:
                reduced = await asyncio.to_thread(reduce, held)  # it may take a while
                given = [each._asdict() for each in reduced]
                await self._database.run(self._settle_statement, {"settled": as_document(given)})


def _find_statement(tables: Tables, kept: timedelta) -> Executable:
    body = tables.generation_body
    return (
        select(body.c.id, body.c.content, body.c.result, body.c.blocks, body.c.encryption_key)
        .where(body.c.result_held & (body.c.id < oldest_id(kept)))
        .order_by(body.c.id)
        .limit(bindparam("rows", type_=Integer))
    )


def _settle_statement(tables: Tables) -> Executable:
    """What was erased or encrypted with another key meanwhile stays as it is."""
    body = tables.generation_body
    names = ("id", "result", "blocks", "encryption_key")
    settled = select(rows_of("settled", body, names)).cte("settled")
    return (
        update(body)
        .where(
            (body.c.id == settled.c.id)
            & body.c.result_held
            & (body.c.encryption_key == settled.c.encryption_key)
        )
        .values(
            result=case((body.c.result == "", ""), else_=settled.c.result),
            blocks=case((body.c.blocks == "", ""), else_=settled.c.blocks),
            result_held=false(),
        )
    )
