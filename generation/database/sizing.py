"""How many connections are needed, and whether PostgreSQL has them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connections

from generation import conf

if TYPE_CHECKING:
    from generation.conf import Settings

BUFFER = 2  # times the demand, which is a mean: bursts go beyond it
SMALLEST_POOL = 10  # what any service gets; an idle connection costs little
OVERFLOW_SHARE = 2  # times the pool
POOL_TIMEOUT_S = (5, 10)  # a caller that waits longer is better told
OTHERS = 5  # connections left for migrations, a console, a backup, monitoring

_LIMITS = """
SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)
"""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """The article's formula. Times are milliseconds but for the timeout's seconds."""

    concurrency: int
    db_ms: float
    total_ms: float
    workers: int = 1  # processes, each with a pool for its share

    @property
    def demand(self) -> float:
        """Connections that are busy at any moment, in all processes."""
        return self.concurrency * self.db_ms / self.total_ms

    @property
    def pool_size(self) -> int:
        return max(SMALLEST_POOL, math.ceil(self.demand * BUFFER / self.workers))

    @property
    def max_overflow(self) -> int:
        return self.pool_size * OVERFLOW_SHARE

    @property
    def steps(self) -> str:
        low, high = POOL_TIMEOUT_S
        share = f" / {self.workers} processes" if self.workers > 1 else ""
        return (
            "demand = requests at once × ms in the database / ms in total\n"
            f"       = {self.concurrency} × {self.db_ms:g} / {self.total_ms:g}"
            f" = {self.demand:.3g} connections\n"
            "\n"
            f"DB_POOL_SIZE={self.pool_size:<6} {BUFFER} × the demand{share}, and {SMALLEST_POOL}"
            " at least: the buffer for bursts\n"
            f"DB_MAX_OVERFLOW={self.max_overflow:<3} {OVERFLOW_SHARE} × the pool, for accidents\n"
            f"DB_POOL_TIMEOUT={high:<3} {low}–{high} s: fail fast, a longer queue helps nobody"
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """Connections that the processes may come to open, and those that PostgreSQL grants."""

    workers: int
    pool_size: int
    max_overflow: int
    django: int  # the ORM's own pool, for the admin and the commands; 0: it has no bound
    granted: int
    granted_by: str

    @property
    def needed(self) -> int:
        return self.workers * (self.pool_size + self.max_overflow + self.django) + OTHERS

    @property
    def fits(self) -> bool:
        return self.needed <= self.granted

    @property
    def sum(self) -> str:
        django = f" + Django's {self.django}" if self.django else ""
        return (
            f"{self.workers} worker{'s' * (self.workers > 1)} × (pool {self.pool_size} + overflow"
            f" {self.max_overflow}{django}) + {OTHERS} for others = {self.needed}"
        )

    @property
    def verdict(self) -> str:
        relation = "fits into" if self.fits else "is more than"
        return f"{self.sum}, which {relation} the {self.granted} of {self.granted_by}"

    @property
    def remedy(self) -> str:
        bound = (self.granted - OTHERS) // self.workers - self.django
        if bound < 2:  # noqa: PLR2004  # a pool and its overflow need one each
            return "Raise max_connections, run fewer workers, or put PgBouncer in between."
        pool = min(self.pool_size, max(1, bound // (1 + OVERFLOW_SHARE)))
        return (
            f"DB_POOL_SIZE={pool} DB_MAX_OVERFLOW={bound - pool} would fit; or raise"
            " max_connections, or put PgBouncer in between."
        )


def expected_workers() -> int:
    """uvicorn and others read the number of workers from here, unless told on the command line."""
    given = os.environ.get("WEB_CONCURRENCY", "")
    return int(given) if given.isdecimal() and int(given) else 1


def budget(alias: str, workers: int) -> Budget:
    """Asks the database through Django. Raises `django.db.Error`."""
    settings = conf.load()
    with connections[alias].cursor() as cursor:
        cursor.execute(_LIMITS)
        server, database, role = cursor.fetchone()
    limits = {"max_connections, less what is reserved": server}
    limits |= {
        name: limit
        for name, limit in (("the database's limit", database), ("the role's limit", role))
        if limit >= 0
    }
    granted_by = min(limits, key=lambda name: limits[name])
    return Budget(
        workers=workers,
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        django=_django_connections(connections.settings[alias]),
        granted=limits[granted_by],
        granted_by=granted_by,
    )


def is_ours_to_count(settings: Settings) -> bool:
    """Behind PgBouncer it is that which bounds the connections to PostgreSQL."""
    return settings.db_pool_mode == "direct"


def _django_connections(database: dict[str, Any]) -> int:
    """The bound of Django's own pool. Without a pool nothing bounds its connections."""
    pool = database.get("OPTIONS", {}).get("pool")
    if not pool:
        return 0
    options = pool if isinstance(pool, dict) else {}
    smallest = int(options.get("min_size", 4))  # psycopg_pool's default
    return int(options.get("max_size") or smallest)
