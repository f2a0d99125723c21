"""One provider as this process sees it: its concurrency limit, retry budget and circuit breaker."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.errors import LLMError
from generation.fair_queue import FairQueue
from generation.llm import policy
from generation.llm.circuit_breaker import PROBE_INTERVAL_S, CircuitBreaker
from generation.llm.failures import FailureLog
from generation.llm.providers.parsing import without_quotes
from generation.llm.retry_budget import RetryBudget
from generation.llm.streamed_attempt import StreamedAttempt, StreamTimes
from generation.records import Attempt, Finding
from generation.telemetry import metrics
from generation.timing import FairTimeout

if TYPE_CHECKING:
    from prometheus_client import Counter

    from generation.conf import Settings
    from generation.llm.circuit_breaker import Ticket
    from generation.llm.completion import CompletionContext
    from generation.llm.providers.base import Answer, Provider
    from generation.llm.streamed_attempt import Relay
    from generation.records import Prompt

logger = logging.getLogger(__name__)

_ALARM_INTERVAL_S = 60.0


@dataclass(slots=True)
class _Request:
    """What the attempts of one request share."""

    deadline: float
    ticket: Ticket | None = None
    is_settled: bool = False


class Upstream:
    def __init__(self, provider: Provider, settings: Settings) -> None:
        self.provider = provider
        self._clock = asyncio.get_running_loop().time
        self._max_attempts = settings.llm_max_attempts
        self._attempt_timeout = settings.llm_attempt_timeout or settings.llm_timeout * 2 / 3
        self._stream_times = StreamTimes(
            settings.llm_stream_idle_timeout, settings.llm_stream_timeout
        )
        self._queue_timeout = settings.llm_queue_timeout
        self._limit = (
            FairQueue(settings.llm_max_concurrency) if settings.llm_max_concurrency else None
        )
        self._budget = RetryBudget(self._clock)
        self._circuit = CircuitBreaker(self._clock, self._report_circuit)
        self.failures = FailureLog(provider.name, provider.url)
        self._alarm_due = 0.0
        self._alarms_withheld = 0
        self._counters: dict[str, Counter] = {}
        circuit = self._circuit
        gauge = metrics.LLM_CIRCUIT_OPEN.labels(provider.name)
        gauge.set_function(lambda: float(circuit.is_open))

    @property
    def is_circuit_open(self) -> bool:
        return self._circuit.is_open

    async def ask(self, context: CompletionContext, model: str, *, has_fallback: bool) -> Answer:
        """Attempt after attempt, until an answer or the error that ends them."""
        deadline = context.deadline
        if has_fallback:
            deadline = policy.deadline_before_fallback(self._clock(), deadline)
        attempt, request = 1, _Request(deadline)
        while True:
            try:
                return await self._attempt(context, model, attempt, request)
            except LLMError as error:
                delay = self._delay(error, attempt, deadline, has_fallback=has_fallback)
                if delay is None or context.is_committed:
                    raise
                if context.meter and not await context.meter.extend(self.provider.name, model):
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
            chance=random.random(),  # noqa: S311  # jitter is no secret
        )
        return delay if delay is not None and self._budget.withdraw() else None

    async def _attempt(
        self, context: CompletionContext, model: str, attempt: int, request: _Request
    ) -> Answer:
        """One attempt; however it ends, `context.attempts` and the metrics have it."""
        started = self._clock()
        slug, status = "cancelled", None
        try:
            answer = await self._ask_within_limit(context, model, attempt, request)
            slug, status = "", 200
            self.failures.answered += 1
            if context.meter:
                context.meter.answered(answer.model or model, answer.usage)
        except LLMError as error:
            slug, status = error.slug, error.status_code
            if context.meter:
                context.meter.failed(error)
            self._log(error, context.prompt, model)
            raise
        else:
            return answer
        finally:
            ms = round((self._clock() - started) * 1000)
            at_ms = round((started - context.began) * 1000)
            context.attempts.append(Attempt(self.provider.name, model, status, slug, ms, at_ms))
            self._counter(slug or "succeeded").inc()

    async def _ask_within_limit(
        self, context: CompletionContext, model: str, attempt: int, request: _Request
    ) -> Answer:
        if self._limit is None:
            return await self._ask_through_circuit(context, model, attempt, request)
        await self._acquire(self._limit, context.prompt.grant.key_id, request.deadline)
        try:
            return await self._ask_through_circuit(context, model, attempt, request)
        finally:
            self._limit.release()

    async def _acquire(self, limit: FairQueue, key_id: int | None, deadline: float) -> None:
        if not limit.is_full:
            await limit.acquire(key_id)  # does not wait
            return
        try:
            async with asyncio.timeout_at(min(deadline, self._clock() + self._queue_timeout)):
                await limit.acquire(key_id)
        except TimeoutError:
            raise policy.to_error(
                Finding.BUSY,
                f"there are too many concurrent calls to {self.provider.name}",
                retry_after=1,
            ) from None

    async def _ask_through_circuit(
        self, context: CompletionContext, model: str, attempt: int, request: _Request
    ) -> Answer:
        ticket = request.ticket = self._circuit.admit(request.ticket)
        if ticket is None:
            raise policy.to_error(
                Finding.PAUSED,
                f"{self.provider.name} has been failing, so calls to it are paused for a moment",
                retry_after=self._circuit.retry_after,
            )
        if attempt == 1:
            self._budget.count_call()
        failed = None  # a cancelled call shows nothing
        end = min(request.deadline, self._clock() + self._attempt_timeout)
        if context.meter:
            context.meter.sent(self.provider.name, model)
        try:
            if context.relay is None:
                async with FairTimeout(end):
                    answer = await self.provider.ask(context.prompt, model, context.idempotency_key)
            else:
                answer = await self._stream(context, context.relay, model, end, request)
            failed = False
        except TimeoutError:
            failed = True
            raise policy.to_error(
                Finding.TIMED_OUT, f"{self.provider.name} did not answer in time"
            ) from None
        except LLMError as error:
            failed = policy.shows_outage(error)
            raise
        else:
            return answer
        finally:
            if not request.is_settled:
                self._circuit.settle(ticket, failed=failed)

    async def _stream(
        self,
        context: CompletionContext,
        relay: Relay,
        model: str,
        end: float,
        request: _Request,
    ) -> Answer:
        def on_commit() -> None:
            """The provider answers, which is news to others long before the answer's end."""
            if request.ticket is not None:
                self._circuit.settle(request.ticket, failed=False)
            request.is_settled = True

        limit = FairTimeout(end)
        attempt = context.streamed = StreamedAttempt(
            context.prompt,
            self.provider.name,
            model,
            relay=relay,
            times=self._stream_times,
            limit=limit,
            deadline=request.deadline,
            on_commit=on_commit,
        )
        try:
            async with limit:
                return await self.provider.stream(
                    context.prompt, model, context.idempotency_key, attempt
                )
        except TimeoutError:
            raise attempt.timed_out() from None

    def _counter(self, outcome: str) -> Counter:
        """Kept here, because the library's own lookup of labels takes longer."""
        counter = self._counters.get(outcome)
        if counter is None:
            counter = metrics.LLM_ATTEMPTS.labels(self.provider.name, outcome)
            self._counters[outcome] = counter
        return counter

    def _log(self, error: LLMError, prompt: Prompt, model: str) -> None:
        match policy.logged(error):
            case policy.Logged.COUNT:
                self.failures.add(error)
            case policy.Logged.ALARM:
                self._raise_alarm(error, prompt, model)

    def _raise_alarm(self, error: LLMError, prompt: Prompt, model: str) -> None:
        """Log what only an operator can fix, at most once a minute."""
        now = self._clock()
        if now < self._alarm_due:
            self._alarms_withheld += 1
            return
        logger.error(
            "%s: %s. An operator has to fix this. The call was for %s at %s; the reply says %r."
            " %d calls failed so since the last such line",
            error.slug,
            error.detail,
            model,
            self.provider.url,
            # A provider may quote the prompt in words that are not quite the prompt's.
            without_quotes(error.said, prompt.text, prompt.system)
            if prompt.log_content == "full"
            else "[not logged, because this prompt's texts are not]",
            self._alarms_withheld,
        )
        self._alarm_due = now + _ALARM_INTERVAL_S
        self._alarms_withheld = 0

    def _report_circuit(self, open_for_s: float | None) -> None:
        if open_for_s is None:
            logger.error(
                "%s: nearly all recent calls failed, so the circuit opens: further calls are"
                " refused, and one every %g s is tried",
                self.provider.name,
                PROBE_INTERVAL_S,
            )
        else:
            logger.warning(
                "%s answers again: the circuit closes after %.0f s", self.provider.name, open_for_s
            )
