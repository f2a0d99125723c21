"""Users whose texts are stored no more."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, any_, bindparam, select

from generation.store import tables

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Executable

    from generation.database.engine import Database
    from generation.records import UserKey


async def forgotten_among(database: Database, users: Collection[UserKey]) -> set[UserKey]:
    """Returns those of the users who have a tombstone. Raises `DatabaseUnavailable`."""
    found = await database.read(_statement(), {"users": list(users)})
    return {row[0] for row in found}


@cache
def _statement() -> Executable:
    forgotten = tables.load().forgotten_user
    users = bindparam("users", type_=ARRAY(forgotten.c.user_id.type))
    return select(forgotten.c.user_id).where(forgotten.c.user_id == any_(users))
