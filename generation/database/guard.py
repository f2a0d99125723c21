"""The guard: no request may hold a database connection while its LLM call runs.

The pool writes each loan into the ledger of the request that borrows; the guard reads it when the
LLM call begins.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

from generation.errors import ConnectionHeld
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = throttled_logger(__name__)


class Ledger:
    """How many connections one request holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


_ledger: ContextVar[Ledger | None] = ContextVar("staccato_ledger", default=None)
current_ledger = _ledger.get  # of this task; None where nothing is counted


def track() -> None:
    """Count, from here on, the connections that this task and its children hold."""
    _ledger.set(Ledger())


@contextlib.contextmanager
def no_connection_held(*, strict: bool) -> Iterator[None]:
    """Guard the block that calls the LLM.

    Where a connection is held as it begins, raises `ConnectionHeld` (strict), or logs and counts
    the violation.
    """
    ledger = current_ledger()
    if ledger is not None and ledger.held:
        metrics.GUARD_VIOLATIONS.inc()
        violation = ConnectionHeld(
            f"{ledger.held} database connection(s) are held by this request as its LLM call"
            " begins; leave the `async with` block that borrowed them first"
        )
        if strict:
            raise violation
        logger.error("%s", violation)
    yield
