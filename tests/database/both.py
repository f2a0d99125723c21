"""What each driver makes of a DATABASE_URL."""

from __future__ import annotations

import asyncpg
import psycopg

from generation.database import connecting, dsn
from project.settings import database

ASKED = "SELECT ssl, inet_server_port(), current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
LIMIT_S = 6.0
Verdict = tuple[bool, int | None, str] | str


def psycopg_says(url: str) -> Verdict:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute(ASKED).fetchone()
    except psycopg.OperationalError:
        return "refused"


async def asyncpg_says(url: str) -> Verdict:
    target = dsn.from_django(database(url))
    try:
        connection = await connecting.connect(target, limit_s=LIMIT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return "refused"
    try:
        return tuple(await connection.fetchrow(ASKED))
    finally:
        await connection.close()


async def both_say(url: str) -> Verdict:
    """Returns the verdict of both drivers. Fails where they differ."""
    found, expected = await asyncpg_says(url), psycopg_says(url)
    assert found == expected, f"asyncpg: {found}, libpq: {expected}, {url}"
    return found
