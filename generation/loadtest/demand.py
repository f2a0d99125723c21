"""How many requests a service had at once, and how long each held a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generation.telemetry.snapshot import PoolPage


@dataclass(frozen=True, slots=True)
class Demand:
    """Since the service started, and of all its processes together."""

    answered: int
    holds: int
    hold_ms: float
    concurrency: int
    db_ms: float  # for each request
    total_ms: float
    workers: int

    @classmethod
    def measured(cls, page: PoolPage) -> Demand | None:
        """Returns None if the service has not answered a request yet."""
        answered, holds = page.total.requests_answered, page.total.holds
        if not answered.count:
            return None
        db_ms = holds.count * holds.mean_ms / answered.count
        return cls(
            answered=answered.count,
            holds=holds.count,
            hold_ms=holds.mean_ms,
            concurrency=page.total.peak_requests_in_flight,
            db_ms=round(db_ms, 3),
            total_ms=round(max(answered.mean_ms, db_ms), 3),
            workers=len(page.answering),
        )

    def __str__(self) -> str:
        processes = f" by {self.workers} processes" if self.workers > 1 else ""
        return (
            f"{self.answered} requests answered{processes}, at most {self.concurrency} at once,"
            f" in {self.total_ms:.0f} ms on average;\nconnections were held {self.holds} times for"
            f" {self.hold_ms:.3g} ms, which is {self.db_ms:.3g} ms for each request."
        )
