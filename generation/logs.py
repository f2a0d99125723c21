"""What keeps the log readable while something is wrong for long."""

from __future__ import annotations

import logging
from time import monotonic

AGAIN_S = 10.0


class OncePerWhile(logging.Filter):
    """Lets a message through that differs from the one before it, or comes `AGAIN_S` after that.

    For loggers that say the same at each flush of an outage, hundreds of times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said = ""
        self._until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        message, now = record.getMessage(), monotonic()
        if message == self._said and now < self._until:
            return False
        self._said, self._until = message, now + AGAIN_S
        return True
