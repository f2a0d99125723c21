"""The deployment's identity: which database the rows of a journal belong to."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from generation.store import tables

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from generation.database.engine import Database


async def identify(database: Database) -> str:
    """Returns what identifies this database: a UUID, made at the first start, and its name.

    Raises `DatabaseUnavailable`.
    """
    make, read = _statements()
    await database.run(make, {"identity": uuid4()})
    ((identity, name),) = await database.read(read)
    return f"{identity}-{name}"


@cache
def _statements() -> tuple[Executable, Executable]:
    deployment = tables.load().deployment
    make = insert(deployment).values(id=1, identity=bindparam("identity")).on_conflict_do_nothing()
    return make, select(deployment.c.identity, func.current_database())
