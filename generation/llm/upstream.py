"""One provider as this process sees it: its place limit, retry budget and circuit breaker."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from generation.errors import (
    LLMBusy,
    LLMCircuitOpen,
    LLMError,
    LLMMisconfigured,
    LLMTimedOut,
)
from generation.llm import policy
from generation.llm.circuit_breaker import CircuitBreaker, RetryBudget
from generation.records import Attempt
from generation.telemetry import metrics

if TYPE_CHECKING:
    from prometheus_client import Counter

    from generation.conf import Settings
    from generation.llm.providers.base import Answer, Provider
    from generation.records import Prompt

logger = logging.getLogger(__name__)

_ALARM_INTERVAL_S = 60.0
_ALARM_CHARS = 300


@dataclass(slots=True)
class Call:
    """One request's way through attempts and providers. Times are the loop's."""

    prompt: Prompt
    idempotency_key: str
    deadline: float
    attempts: list[Attempt]


class Upstream:
    def __init__(self, provider: Provider, settings: Settings) -> None:
        self.provider = provider
        self._clock = asyncio.get_running_loop().time
        self._max_attempts = settings.llm_max_attempts
        self._attempt_timeout = settings.llm_attempt_timeout or settings.llm_timeout * 2 / 3
        self._queue_timeout = settings.llm_queue_timeout
        self._places = (
            asyncio.Semaphore(settings.llm_max_concurrency)
            if settings.llm_max_concurrency
            else None
        )
        self._budget = RetryBudget(self._clock)
        self._circuit = CircuitBreaker(self._clock)
        self._alarm_due = 0.0
        self._outcomes: dict[str, Counter] = {}
        circuit = self._circuit
        gauge = metrics.LLM_CIRCUIT_OPEN.labels(provider.name)
        gauge.set_function(lambda: float(circuit.is_open))

    async def ask(self, call: Call, model: str, *, has_fallback: bool) -> Answer:
        """Attempt after attempt, until an answer or the error that ends them."""
        if has_fallback:  # the list of attempts stays the request's
            call = replace(call, deadline=policy.end_of_turn(self._clock(), call.deadline))
        attempt = 1
        while True:
            try:
                return await self._attempt(call, model, attempt)
            except LLMError as error:
                error.provider, error.model = self.provider.name, model
                delay = self._delay(error, attempt, call.deadline, has_fallback=has_fallback)
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            attempt += 1

    def _delay(
        self, error: LLMError, attempt: int, deadline: float, *, has_fallback: bool
    ) -> float | None:
        if has_fallback and policy.skips_retries(error):
            return None
        delay = policy.retry_delay(
            error,
            attempt=attempt,
            max_attempts=self._max_attempts,
            remaining=deadline - self._clock(),
            chance=random.random(),  # noqa: S311
        )
        return delay if delay is not None and self._budget.withdraw() else None

    async def _attempt(self, call: Call, model: str, attempt: int) -> Answer:
        """One attempt, noted in `call.attempts` and the metrics whatever becomes of it."""
        started = self._clock()
        outcome, status = "cancelled", None
        try:
            answer = await self._ask_in_place(call, model, attempt)
            outcome, status = "", 200
        except LLMError as error:
            outcome, status = error.slug, error.status_code
            self._raise_alarm(error, model)
            raise
        else:
            return answer
        finally:
            ms = round((self._clock() - started) * 1000)
            call.attempts.append(Attempt(self.provider.name, model, status, outcome, ms))
            self._outcome(outcome or "succeeded").inc()

    async def _ask_in_place(self, call: Call, model: str, attempt: int) -> Answer:
        if self._places is None:
            return await self._ask_past_circuit(call, model, attempt)
        await self._take_place(self._places, call.deadline)
        try:
            return await self._ask_past_circuit(call, model, attempt)
        finally:
            self._places.release()

    async def _take_place(self, places: asyncio.Semaphore, deadline: float) -> None:
        if not places.locked():
            await places.acquire()  # does not wait
            return
        try:
            async with asyncio.timeout_at(min(deadline, self._clock() + self._queue_timeout)):
                await places.acquire()
        except TimeoutError:
            raise LLMBusy(
                f"too many calls to {self.provider.name} at once",
                retry_after=1,
                should_retry=False,
            ) from None

    async def _ask_past_circuit(self, call: Call, model: str, attempt: int) -> Answer:
        ticket = self._circuit.admit()
        if ticket is None:
            raise LLMCircuitOpen(
                f"{self.provider.name} has been failing and is left alone for a moment",
                retry_after=self._circuit.retry_after,
                should_retry=False,
            )
        if attempt == 1:
            self._budget.note_call()
        failed = None  # a cancelled call shows nothing
        end = min(call.deadline, self._clock() + self._attempt_timeout)
        try:
            async with asyncio.timeout_at(end):
                answer = await self.provider.ask(call.prompt, model, call.idempotency_key)
            failed = False
        except TimeoutError:
            failed = True
            raise LLMTimedOut(f"{self.provider.name} did not answer in time") from None
        except LLMError as error:
            failed = policy.shows_outage(error)
            raise
        else:
            return answer
        finally:
            self._circuit.settle(ticket, failed=failed)

    def _outcome(self, outcome: str) -> Counter:
        counter = self._outcomes.get(outcome)
        if counter is None:
            counter = metrics.LLM_ATTEMPTS.labels(self.provider.name, outcome)
            self._outcomes[outcome] = counter
        return counter

    def _raise_alarm(self, error: LLMError, model: str) -> None:
        now = self._clock()
        if isinstance(error, LLMMisconfigured) and now >= self._alarm_due:
            self._alarm_due = now + _ALARM_INTERVAL_S
            logger.error(
                "%s: %s; someone has to act. It was asked for %s at %s and said %r",
                error.slug,
                error.detail,
                model,
                self.provider.url,
                error.raw_reply[:_ALARM_CHARS],
            )
