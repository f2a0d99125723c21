"""The log: its lines name the request that they belong to, and an outage does not fill it.

Names are a project's interface: its LOGGING may name the formatters and the logger `EACH`.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from uuid import UUID

    from generation.records import GenerationRequest, LogRow

THROTTLE_S = 10.0
# A line for each generation. It costs 16 µs, 3 % of one, so nothing is logged unless the
# project's LOGGING gives this logger a level.
EACH = "generation.each"
_each = logging.getLogger(EACH)
if _each.level == logging.NOTSET:
    _each.setLevel(logging.WARNING)

# The request that is served in this context; '' in none.
request_id: ContextVar[str] = ContextVar("request_id", default="")


class Subject(NamedTuple):
    """The generation whose task logs."""

    log_id: UUID
    request: GenerationRequest

    @property
    def trace_id(self) -> str:
        """The caller's, else one that is the row's id, so that each leads to the other."""
        return self.request.trace.trace_id or self.log_id.hex

    @property
    def span_id(self) -> str:
        return self.log_id.hex[16:]


subject: ContextVar[Subject | None] = ContextVar("subject", default=None)

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


class JsonFormatter(logging.Formatter):
    """One JSON object for each message, in a line. It names the request, and the generation if one
    logs: its row, user, trace and span. Prompts and answers are in none."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if about := subject.get():
            line["request_id"] = about.request.request_id
            line["log_id"] = about.log_id.hex
            line["user_id"] = about.request.user_id
            line["trace_id"] = about.trace_id
            line["span_id"] = about.span_id
        elif request := request_id.get():
            line["request_id"] = request
        line |= getattr(record, "figures", {})
        if record.exc_info:
            line["exc"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, which is no UTF-8
            return json.dumps(line, default=str)


def log_each(row: LogRow) -> None:
    """Log the line of a generation, where the project wants it."""
    if not _each.isEnabledFor(logging.INFO):
        return
    figures = {
        "status": row.status,
        "provider": row.provider,
        "model": row.model,
        "latency_ms": row.latency_ms,
        "llm_latency_ms": row.llm_latency_ms,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost_usd": None if row.cost_usd is None else float(row.cost_usd),
        "attempts": len(row.attempts),
        "error_type": row.error_type,
        "api_key_id": row.api_key_id,
    }
    _each.info(
        "%s %s:%s in %d ms",
        row.status,
        row.provider,
        row.model,
        row.latency_ms,
        extra={"figures": figures},
    )
