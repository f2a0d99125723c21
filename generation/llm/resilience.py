"""What a provider's recent past allows: a retry budget and a circuit breaker.

Both count in sliding windows and hold no lock: they live in one event loop. `clock` gives
seconds, as `loop.time` does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SHARE = 0.2  # of recent calls
RETRY_FLOOR = 10  # per window, so that a quiet service can retry at all
RETRY_WINDOW_S = 10.0

# The window is short, so that successes from before an outage can't keep the circuit
# closed for the two seconds it may take to open.
OUTAGE_WINDOW_S = 1.5
OUTAGE_MIN_FAILURES = 10
# A provider that still answers one call in five is better than none.
OUTAGE_FAILURE_SHARE = 0.8
# A probe is one call, so it can be frequent; this is also the longest delay to recovery.
PROBE_INTERVAL_S = 2.0


class SlidingCounts:
    """Two counters over the last `seconds`, kept in `slots` steps."""

    def __init__(self, seconds: float, slots: int, clock: Callable[[], float]) -> None:
        self._step = seconds / slots
        self._slots = slots
        self._clock = clock
        self._counts: deque[list[int]] = deque()  # [slot, first, second]
        self._first = 0
        self._second = 0

    def add(self, first: int = 0, second: int = 0) -> None:
        slot = self._drop_old()
        if not self._counts or self._counts[-1][0] != slot:
            self._counts.append([slot, 0, 0])
        self._counts[-1][1] += first
        self._counts[-1][2] += second
        self._first += first
        self._second += second

    def totals(self) -> tuple[int, int]:
        self._drop_old()
        return self._first, self._second

    def clear(self) -> None:
        self._counts.clear()
        self._first = self._second = 0

    def _drop_old(self) -> int:
        slot = int(self._clock() / self._step)
        while self._counts and self._counts[0][0] <= slot - self._slots:
            _, first, second = self._counts.popleft()
            self._first -= first
            self._second -= second
        return slot


class RetryBudget:
    """Keeps retries at a share of recent calls: a failing provider sees at most 1.2 × the load."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._recent = SlidingCounts(RETRY_WINDOW_S, 10, clock)

    def note_call(self) -> None:
        """Count a first attempt."""
        self._recent.add(first=1)

    def withdraw(self) -> bool:
        """Take one retry out of the budget; False where there is none left."""
        calls, retries = self._recent.totals()
        if retries >= max(RETRY_FLOOR, int(calls * RETRY_SHARE)):
            return False
        self._recent.add(second=1)
        return True


class CircuitBreaker:
    """Opens when nearly every recent call failed; half-opens with one probe at a time.

    `admit()` gives a ticket, or None while the provider is left alone. Each ticket is handed
    back once, through `settle()` or `release()`. Tickets from before the circuit opened no
    longer count.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._recent = SlidingCounts(OUTAGE_WINDOW_S, 3, clock)
        self._era = 0
        self._probe_at: float | None = None  # None: closed
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe is due."""
        return 0.0 if self._probe_at is None else max(0.0, self._probe_at - self._clock())

    def admit(self) -> int | None:
        if self._probe_at is None:
            return self._era
        if self._probing or self._clock() < self._probe_at:
            return None
        self._probing = True
        self._era += 1  # the probe's own ticket
        return self._era

    def settle(self, ticket: int, *, failed: bool) -> None:
        """The call showed whether the provider works."""
        if ticket != self._era:
            return
        if self._probe_at is None:
            self._count(failed=failed)
        elif failed:
            self._open()
        else:
            self._close()

    def release(self, ticket: int) -> None:
        """The call showed nothing: cancelled, or rate-limited. The next may probe at once."""
        if ticket == self._era:
            self._probing = False

    def _count(self, *, failed: bool) -> None:
        self._recent.add(first=1, second=int(failed))
        if not failed:
            return
        outcomes, failures = self._recent.totals()
        if failures >= OUTAGE_MIN_FAILURES and failures >= outcomes * OUTAGE_FAILURE_SHARE:
            self._open()

    def _open(self) -> None:
        self._era += 1
        self._probing = False
        self._probe_at = self._clock() + PROBE_INTERVAL_S

    def _close(self) -> None:
        self._era += 1
        self._probing = False
        self._probe_at = None
        self._recent.clear()
