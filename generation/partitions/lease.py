"""A lease on a periodic task: one process at a time does it, and not more often than it is due.

It is a row, by the database's clock. So it works behind PgBouncer, between hosts, and after a kill.
"""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Interval, Uuid, bindparam, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from generation.database.engine import Database

LASTS = timedelta(minutes=10)

_TAKE = text("""
INSERT INTO generation_maintenance AS task (task, holder, leased_until)
VALUES (:task, :holder, statement_timestamp() + :lasts)
ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, leased_until = excluded.leased_until
WHERE task.leased_until < statement_timestamp()
    AND (task.done_at IS NULL OR task.done_at <= statement_timestamp() - :every)
RETURNING task.task
""").bindparams(
    bindparam("holder", type_=Uuid()),
    bindparam("lasts", type_=Interval()),
    bindparam("every", type_=Interval()),
)
_EXTEND = text("""
UPDATE generation_maintenance SET leased_until = statement_timestamp() + :lasts
WHERE task = :task AND holder = :holder
RETURNING task
""").bindparams(bindparam("holder", type_=Uuid()), bindparam("lasts", type_=Interval()))
_END = text("""
UPDATE generation_maintenance
SET leased_until = statement_timestamp(),
    done_at = CASE WHEN :is_done THEN statement_timestamp() ELSE done_at END,
    done_by = CASE WHEN :is_done THEN :worker ELSE done_by END
WHERE task = :task AND holder = :holder
""").bindparams(bindparam("holder", type_=Uuid()))


@contextlib.asynccontextmanager
async def leased(
    database: Database, task: str, *, every: timedelta, lasts: timedelta = LASTS
) -> AsyncIterator[UUID | None]:
    """Gives the holder's id if the task is ours now: no other process has it, and it was last done
    at least `every` ago. An error in the block leaves it due. Raises `DatabaseUnavailable`.
    """
    holder = uuid4()
    taken = await database.run(
        _TAKE, {"task": task, "holder": holder, "lasts": lasts, "every": every}
    )
    if not taken:
        yield None
        return
    is_done = False
    try:
        yield holder
        is_done = True
    finally:
        ending = {"task": task, "holder": holder, "is_done": is_done, "worker": _worker()}
        await database.run(_END, ending)


async def extend(database: Database, task: str, holder: UUID, *, lasts: timedelta) -> bool:
    """Have a lease last so long from now on. Returns False if another process has it by now. Raises
    `DatabaseUnavailable`.
    """
    given = {"task": task, "holder": holder, "lasts": lasts}
    return bool(await database.run(_EXTEND, given))


def _worker() -> str:
    return f"process {os.getpid()} on {socket.gethostname()[:80]}"
