"""What keeps the log readable while something is wrong for long."""

from __future__ import annotations

import logging
from time import monotonic

AGAIN_S = 10.0


REMEMBERED = 16


class OncePerWhile(logging.Filter):
    """Lets the same message through once in `AGAIN_S`; whatever has a traceback, always.

    For loggers that say the same few things at each flush of an outage, hundreds of times a
    second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._until: dict[str, float] = {}  # the oldest first

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return True
        message, now = record.getMessage(), monotonic()
        if now < self._until.get(message, 0.0):
            return False
        self._until.pop(message, None)
        self._until[message] = now + AGAIN_S
        if len(self._until) > REMEMBERED:
            del self._until[next(iter(self._until))]
        return True
