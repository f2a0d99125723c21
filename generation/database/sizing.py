"""How many connections are needed, and whether PostgreSQL grants as many. Pure sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BUFFER = 2  # times the demand, which is a mean: bursts exceed it
SMALLEST_POOL = 10  # for any service; an idle connection costs little
OVERFLOW_SHARE = 2  # times the pool
POOL_TIMEOUT_S = (5, 10)  # a caller that would wait longer is better refused
OTHERS = 5  # connections left for migrations, a console, a backup, monitoring


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Demand is requests at once × time in the database ÷ time in total. Times are milliseconds."""

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
            f"DB_POOL_TIMEOUT={high:<3} {low}–{high} s: fail fast: a longer queue helps no caller"
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """The connections that all processes may open, and those that PostgreSQL grants."""

    workers: int
    pool_size: int
    max_overflow: int
    django: int  # the ORM's own pool, for the admin and the commands; 0: no bound
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
        if bound < 2:  # a pool and its overflow need one each
            return "Raise max_connections, run fewer workers, or put PgBouncer in between."
        pool = min(self.pool_size, max(1, bound // (1 + OVERFLOW_SHARE)))
        return (
            f"DB_POOL_SIZE={pool} DB_MAX_OVERFLOW={bound - pool} would fit; or raise"
            " max_connections, or put PgBouncer in between."
        )


def tightest(server: int, database: int, role: int) -> tuple[int, str]:
    """Returns the smallest of PostgreSQL's three limits, and its name. A negative limit is none."""
    limits = {
        "max_connections, less what is reserved": server,
        "the database's limit": database,
        "the role's limit": role,
    }
    limits = {name: limit for name, limit in limits.items() if limit >= 0}
    name = min(limits, key=lambda name: limits[name])
    return limits[name], name


def django_pool_limit(database: Mapping[str, Any]) -> int:
    """Returns the bound of Django's own pool, 0 where it has no pool and so no bound."""
    pool = database.get("OPTIONS", {}).get("pool")
    if not pool:
        return 0
    options = pool if isinstance(pool, dict) else {}
    smallest = int(options.get("min_size", 4))  # psycopg_pool's default
    return int(options.get("max_size") or smallest)
