"""What a provider's recent past allows: a retry budget and a circuit breaker.

Both count in sliding windows and hold no lock: they live in one event loop. `clock` gives
seconds, as `loop.time` does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SHARE = 0.2  # of recent calls
RETRY_FLOOR = 10  # per window, so that a quiet service can retry at all
RETRY_WINDOW_S = 10.0

_SLOT_S = 0.5
_SLOTS_KEPT = 256  # calls that end later than two minutes after they began are not judged

# Short, so that the circuit opens within two seconds of total failure.
OUTAGE_SLOTS = 3
OUTAGE_MIN_FAILURES = 10
# A provider that still answers one call in five is better than none.
OUTAGE_FAILURE_SHARE = 0.8
# A probe is one call, so it can be frequent; this is also the longest delay to recovery.
PROBE_INTERVAL_S = 2.0


# In a quiet service so many calls are spread over a minute. What fails at once costs it little;
# what hangs, everybody waits out, though whoever was answered since would have shown that it is
# well.
HANG_SLOTS = 10
HANG_MAX_SLOTS = 120


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


class Ticket(NamedTuple):
    """A call that the circuit breaker let through."""

    era: int
    slot: int  # when it began


class CircuitBreaker:
    """Opens when nearly every call begun of late has failed, or in a quiet service every one has
    hung; half-opens with single probes.

    A probe may hang until its call times out, so the next one does not wait for its end.

    Calls are judged by when they began, not by when they ended. Failures are quick and answers
    slow, so among the outcomes of one moment there are answers to calls from before an outage,
    and, after a burst, nothing but failures. Calls still under way count as not failed, and a
    failure counts only while no call begun after it has been answered.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun: dict[int, list[int]] = {}  # slot → [calls begun, of these failed]
        self._answered_slot = -1  # the latest one in which an answered call began
        self._era = 0  # tickets of an earlier era no longer count
        self._opened_era = 0  # later ones are the probes'
        self._probe_at: float | None = None  # None: closed

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe is due."""
        return 0.0 if self._probe_at is None else max(0.0, self._probe_at - self._clock())

    def admit(self) -> Ticket | None:
        """None while the provider is left alone. A ticket is handed back once, by `settle()`."""
        now = self._clock()
        slot = int(now / _SLOT_S)
        if self._probe_at is None:
            self._count(slot)[0] += 1
            return Ticket(self._era, slot)
        if now < self._probe_at:
            return None
        self._probe_at = now + PROBE_INTERVAL_S
        self._era += 1  # the probe's own
        return Ticket(self._era, slot)

    def settle(self, ticket: Ticket, *, failed: bool | None) -> None:
        """The call ended. None: it showed nothing, as when it was cancelled or rate-limited."""
        if self._probe_at is not None:
            self._settle_probe(ticket, failed=failed)
        elif ticket.era != self._era:
            return
        elif failed is None:
            self._count(ticket.slot)[0] -= 1
        elif failed:
            self._count(ticket.slot)[1] += 1
            if self._is_outage(ticket.slot):
                self._turn(to_open=True)
        else:
            self._answered_slot = max(self._answered_slot, ticket.slot)

    def _settle_probe(self, ticket: Ticket, *, failed: bool | None) -> None:
        if failed is False and ticket.era > self._opened_era:
            self._turn(to_open=False)
        elif failed is None and ticket.era == self._era:
            self._probe_at = self._clock()

    def _count(self, slot: int) -> list[int]:
        count = self._begun.get(slot)
        if count is None:
            count = self._begun[slot] = [0, 0]
            while len(self._begun) > _SLOTS_KEPT:
                del self._begun[next(iter(self._begun))]
        return count

    def _is_outage(self, slot: int) -> bool:
        begun, failed = self._sum(max(slot - OUTAGE_SLOTS + 1, self._answered_slot), slot)
        if failed >= OUTAGE_MIN_FAILURES:
            return failed >= begun * OUTAGE_FAILURE_SHARE
        if int(self._clock() / _SLOT_S) - slot < HANG_SLOTS:
            return False
        begun, failed = self._sum(max(slot - HANG_MAX_SLOTS, self._answered_slot) + 1, slot)
        return failed >= OUTAGE_MIN_FAILURES and failed == begun

    def _sum(self, first: int, last: int) -> tuple[int, int]:
        """The calls that began in these slots, and how many of them have failed."""
        counts = [self._begun.get(number, (0, 0)) for number in range(first, last + 1)]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def _turn(self, *, to_open: bool) -> None:
        self._era += 1
        self._opened_era = self._era
        self._probe_at = self._clock() + PROBE_INTERVAL_S if to_open else None
        self._begun.clear()
        self._answered_slot = -1
