"""A retry budget: retries are a share of recent calls, so that they can't multiply an outage."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SHARE = 0.2  # of recent calls
RETRY_FLOOR = 10  # per window, so that a quiet service can retry at all
RETRY_WINDOW_S = 10.0
_STEPS = 10  # in which the window slides


@dataclass(slots=True)
class _Step:
    number: int
    calls: int = 0
    retries: int = 0


class RetryBudget:
    """At full failure a provider receives at most 1.2 × the load.

    Holds no lock: it lives in one event loop. `clock` returns seconds, as `loop.time` does.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window: deque[_Step] = deque()
        self._calls = 0
        self._retries = 0

    def count_call(self) -> None:
        """Count a first attempt."""
        self._current_step().calls += 1
        self._calls += 1

    def withdraw(self) -> bool:
        """Take one retry out of the budget. Returns False if none is left."""
        step = self._current_step()
        if self._retries >= max(RETRY_FLOOR, int(self._calls * RETRY_SHARE)):
            return False
        step.retries += 1
        self._retries += 1
        return True

    def _current_step(self) -> _Step:
        number = int(self._clock() * _STEPS / RETRY_WINDOW_S)
        while self._window and self._window[0].number <= number - _STEPS:
            expired = self._window.popleft()
            self._calls -= expired.calls
            self._retries -= expired.retries
        if not self._window or self._window[-1].number != number:
            self._window.append(_Step(number))
        return self._window[-1]
