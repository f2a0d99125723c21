"""The log: its lines name the request that they belong to, and an outage does not fill it."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from time import monotonic

THROTTLE_S = 10.0
# The request that is served in this context; '' in none.
request_id: ContextVar[str] = ContextVar("request_id", default="")

REMEMBERED = 16  # messages; beyond that the oldest is forgotten, and logged again when it recurs


def throttled_logger(name: str) -> logging.Logger:
    """Returns the logger of that name, throttled.

    For modules that log the same few messages at each flush of an outage, hundreds of times a
    second.
    """
    logger = logging.getLogger(name)
    logger.addFilter(Throttle())
    return logger


class Throttle(logging.Filter):
    """Drops a message that was logged within the last `THROTTLE_S`, unless it has a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until: dict[str, float] = {}  # in the order of logging

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return True
        message, now = record.getMessage(), monotonic()
        if now < self._quiet_until.get(message, 0.0):
            return False
        self._quiet_until.pop(message, None)
        self._quiet_until[message] = now + THROTTLE_S
        if len(self._quiet_until) > REMEMBERED:
            del self._quiet_until[next(iter(self._quiet_until))]
        return True


class LineFormatter(logging.Formatter):
    """One line for each message. Its end names the request, so that an id finds all its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base's name
        line = " ".join(super().formatMessage(record).split("\n"))  # libpq's messages have several
        request = request_id.get()
        return f"{line} [request {request}]" if request else line
