"""A circuit breaker: stops calls to a provider that fails, and lets single probes through.

It counts requests, not attempts: one request that fails three times is one failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOT_S = 0.5
_SLOTS_KEPT = 256  # a call that ends more than two minutes after it began is not counted

OUTAGE_SLOTS = 3  # short, so that the circuit opens within two seconds of total failure
OUTAGE_MIN_FAILURES = 10
OUTAGE_FAILURE_SHARE = 0.8  # a provider that still answers one call in five is better than none

# At low traffic, ten calls may span a minute. Fast failures are cheap then and are ignored; hangs
# make every caller wait for the timeout. So ten hangs in a row open the circuit, too.
HANG_SLOTS = 10  # a call that fails this much later than it began has hung
HANG_MAX_SLOTS = 120  # the span in which ten calls may have hung

# A probe is one call, so it can be frequent; this is also the longest delay to recovery.
PROBE_INTERVAL_S = 2.0


@dataclass(slots=True)
class Slot:
    """The requests that began within one half second."""

    begun: int = 0
    failed: int = 0


_NO_CALLS = Slot()


@dataclass(slots=True)
class Ticket:
    """A request that the circuit breaker let through."""

    epoch: int
    slot: int  # the number of the one in which it began
    failed: bool | None = None  # as it counts now
    is_counted: bool = True


class CircuitBreaker:
    """Opens if nearly every recent call failed or, at low traffic, if every call hung.

        closed ──outage──▶ open ──probe due──▶ half-open
          ▲                  ▲                  │     │
          │                  └───probe failed───┘     │
          └────────────probe answered─────────────────┘

    A probe may hang until its call times out, so the next one does not wait for its end.

    Calls are judged by when they began, not by when they ended. Failures are quick and answers
    slow, so the calls that end at one moment include answers to calls from before an outage and,
    after a burst, nothing but failures. Calls still under way count as not failed, and a failure
    counts only if no call that began after it has been answered.

    Holds no lock: it lives in one event loop. `clock` returns seconds, as `loop.time` does.
    """

    def __init__(
        self, clock: Callable[[], float], on_change: Callable[[float | None], None] | None = None
    ) -> None:
        self._clock = clock
        self._on_change = on_change  # gets the seconds it was open; None: it opens
        self._opened_at = 0.0
        self._slots: dict[int, Slot] = {}  # by number, in order
        self._answered_slot = -1  # the latest one in which an answered call began
        self._epoch = 0  # advances when the circuit opens or closes, and with each probe
        self._opened_epoch = 0  # the tickets of later ones belong to probes
        self._probe_at: float | None = None  # None: closed

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe is due."""
        return 0.0 if self._probe_at is None else max(0.0, self._probe_at - self._clock())

    def admit(self, earlier: Ticket | None = None) -> Ticket | None:
        """A ticket for one attempt, to hand back with `settle()`; None while none may pass.

        `earlier` is the ticket of the same request's attempt before.
        """
        now = self._clock()
        number = int(now / _SLOT_S)
        if self._probe_at is None:
            if earlier is not None and earlier.epoch == self._epoch and earlier.is_counted:
                return earlier
            self._slot(number).begun += 1
            return Ticket(self._epoch, number)
        if now < self._probe_at:
            return None
        self._probe_at = now + PROBE_INTERVAL_S
        self._epoch += 1
        return Ticket(self._epoch, number)

    def settle(self, ticket: Ticket, *, failed: bool | None) -> None:
        """The attempt has ended. None: it showed nothing, e.g. it was cancelled or rate-limited.

        A request counts as failed from its first failure on, until a further attempt is answered.
        """
        if self._probe_at is not None:
            self._settle_probe(ticket, failed=failed)
        elif ticket.epoch == self._epoch and ticket.is_counted:
            self._count(ticket, failed=failed)

    def _count(self, ticket: Ticket, *, failed: bool | None) -> None:
        slot = self._slot(ticket.slot)
        if failed is None:
            if ticket.failed is None:
                slot.begun -= 1
                ticket.is_counted = False
        elif failed:
            if ticket.failed is None:
                slot.failed += 1
                ticket.failed = True
                if self._is_outage(ticket.slot):
                    self._open()
        else:
            if ticket.failed:
                slot.failed -= 1
            ticket.failed = False
            self._answered_slot = max(self._answered_slot, ticket.slot)

    def _settle_probe(self, ticket: Ticket, *, failed: bool | None) -> None:
        if failed is False and ticket.epoch > self._opened_epoch:
            self._close()
        elif failed is None and ticket.epoch == self._epoch:
            self._probe_at = self._clock()  # it showed nothing, so the next one is due at once

    def _open(self) -> None:
        self._start_epoch()
        self._opened_at = self._clock()
        self._probe_at = self._opened_at + PROBE_INTERVAL_S
        if self._on_change:
            self._on_change(None)

    def _close(self) -> None:
        self._start_epoch()
        self._probe_at = None
        if self._on_change:
            self._on_change(self._clock() - self._opened_at)

    def _start_epoch(self) -> None:
        self._epoch += 1
        self._opened_epoch = self._epoch
        self._slots.clear()
        self._answered_slot = -1

    def _slot(self, number: int) -> Slot:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = Slot()
            while len(self._slots) > _SLOTS_KEPT:
                del self._slots[next(iter(self._slots))]
        return slot

    def _is_outage(self, number: int) -> bool:
        recent = self._sum(max(number - OUTAGE_SLOTS + 1, self._answered_slot), number)
        if recent.failed >= OUTAGE_MIN_FAILURES:
            return recent.failed >= recent.begun * OUTAGE_FAILURE_SHARE
        if int(self._clock() / _SLOT_S) - number < HANG_SLOTS:
            return False
        hung = self._sum(max(number - HANG_MAX_SLOTS, self._answered_slot) + 1, number)
        return hung.failed >= OUTAGE_MIN_FAILURES and hung.failed == hung.begun

    def _sum(self, first: int, last: int) -> Slot:
        slots = [self._slots.get(number, _NO_CALLS) for number in range(first, last + 1)]
        return Slot(sum(slot.begun for slot in slots), sum(slot.failed for slot in slots))
