"""What the log says about a failing provider: the first failure at once, then counts in a while."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextvars import Context
from typing import TYPE_CHECKING

from generation.telemetry.logs import request_id

if TYPE_CHECKING:
    from generation.errors import LLMError

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 10.0


class FailureLog:
    """One provider's. Belongs to one event loop."""

    def __init__(self, name: str, url: str) -> None:
        self._name = f"{name} at {url}" if url else name
        self._failed: Counter[str] = Counter()  # by slug, since the last line
        self._last = self._last_request = ""
        self._timer: asyncio.TimerHandle | None = None
        self.answered = 0  # the owner counts it up

    def add(self, error: LLMError) -> None:
        said = f" ({error.said})" if error.said else ""
        self._last = f"{error.detail}{said}"
        self._last_request = request_id.get()
        if self._timer is None:
            logger.warning("%s: a call failed: %s: %s", self._name, error.slug, self._last)
            self.answered = 0
            self._wait()
        else:
            self._failed[error.slug] += 1

    def report(self) -> None:
        """Log what has been counted, and go on counting as long as calls fail."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._failed:
            return
        logger.warning(
            "%s: %d more calls failed and %d were answered: %s. The last one: %s%s",
            self._name,
            self._failed.total(),
            self.answered,
            ", ".join(f"{count} × {slug}" for slug, count in self._failed.most_common()),
            self._last,
            f", request {self._last_request}" if self._last_request else "",
        )
        self._failed.clear()
        self.answered = 0
        self._wait()

    def close(self) -> None:
        self.report()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        # In no request's context: the line is about many.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REPORT_EVERY_S, self.report, context=Context())
