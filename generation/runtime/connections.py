"""Whether PostgreSQL grants the connections that all workers may open; asked through Django."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections

from generation.database import sizing

if TYPE_CHECKING:
    from generation.conf import Settings

_LIMITS = """
SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)
"""


def budget(settings: Settings, workers: int) -> sizing.Budget | None:
    """Returns None behind PgBouncer, which bounds the connections to PostgreSQL itself.

    Raises `django.db.Error`.
    """
    if settings.db_pool_mode != "direct":
        return None
    with connections[settings.database].cursor() as cursor:
        cursor.execute(_LIMITS)
        granted, granted_by = sizing.tightest(*cursor.fetchone())
    return sizing.Budget(
        workers=workers,
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        django=sizing.django_pool_limit(connections.settings[settings.database]),
        granted=granted,
        granted_by=granted_by,
    )
