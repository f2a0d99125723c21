"""Which of the app's migrations the database has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.database.engine import Database

_APPLIED = text("SELECT 'generation.' || name FROM django_migrations WHERE app = 'generation'")


async def pending_among(database: Database, migrations: Sequence[str]) -> list[str]:
    """Returns those that are not applied. Raises `DatabaseUnavailable`."""
    applied = {row[0] for row in await database.read(_APPLIED)}
    return [each for each in migrations if each not in applied]
