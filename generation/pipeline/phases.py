"""The three phases: read → release → call the LLM → reacquire → write."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from uuid_utils.compat import uuid7

from generation.errors import LLMError, ModelForbidden
from generation.pipeline import prompts
from generation.records import (
    Attempt,
    Generation,
    GenerationRequest,
    LogRow,
    Profile,
    Prompt,
    Reply,
)
from generation.telemetry import metrics
from generation.telemetry.durations import Durations

if TYPE_CHECKING:
    from uuid import UUID

    from generation.conf import Settings
    from generation.database.engine import Database
    from generation.journal.durable_log import DurableLog
    from generation.llm.client import LLMClient
    from generation.pipeline.call import Call
    from generation.pipeline.idempotency import Idempotency
    from generation.store.logs import Store

logger = logging.getLogger(__name__)


class Pipeline:
    """One generation from its request to its answer.

    Phases 1 and 3 are never cancelled; phase 2 ends early where the call is abandoned.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # the rooms it leads through
        self,
        settings: Settings,
        database: Database,
        store: Store,
        idempotency: Idempotency,
        llm: LLMClient,
        log: DurableLog,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._idempotency = idempotency
        self._llm = llm
        self._log = log
        self.overhead = Durations()  # of requests, outside of their LLM calls

    async def generate(self, call: Call) -> Generation:
        """Raises a `StaccatoError`; once phase 1 has passed, one row tells the fate."""
        request = call.request
        self._database.track()

        profile = await self._store.read_profile(request)  # phase 1: borrowed, returned
        if not request.idempotency_key:
            return await self._ask_and_write(call, profile)
        return await self._idempotency.once(
            request, lambda claim: self._ask_and_write(call, profile, claim)
        )

    async def _ask_and_write(
        self, call: Call, profile: Profile, claim: UUID | None = None
    ) -> Generation:
        request = call.request
        prompt = self._prompt(request, profile)

        llm_started = time.monotonic()
        with self._database.no_connection_held():  # a broken promise raises here
            fate = await self._ask(call, prompt)  # phase 2: 2-8 s, no connection
        llm_ms = _milliseconds(since=llm_started)

        row = _row(request, prompt, fate, llm_ms, claim)
        await self._log.write(row)  # phase 3: group commit, or the journal
        self._note_overhead(time.monotonic() - request.started - llm_ms / 1000)

        if isinstance(fate, LLMError):
            raise fate
        return Generation(row.id, row.result, fate.usage, row.provider, row.model, row.latency_ms)

    def _note_overhead(self, seconds: float) -> None:
        metrics.OVERHEAD.observe(seconds)
        self.overhead.add(seconds)

    def _prompt(self, request: GenerationRequest, profile: Profile) -> Prompt:
        if request.model or request.provider:
            wanted = (request.provider, request.model)
        else:
            wanted = (profile.provider, profile.model)
        provider, model = self._llm.choose(*wanted)
        if not request.grant.covers(provider, model):
            raise ModelForbidden(f"this API key may not use {provider}:{model}")
        return Prompt(
            text=prompts.render(profile, request),
            system=profile.system,
            provider=provider,
            model=model,
            max_tokens=request.max_tokens or profile.max_tokens or self._settings.llm_max_tokens,
            grant=request.grant,
        )

    async def _ask(self, call: Call, prompt: Prompt) -> Reply | LLMError:
        """Phase 2's fate as a value, since either kind is written down."""
        attempts: list[Attempt] = []  # here, so that a call that was given up tells them, too
        try:
            with metrics.LLM_SECONDS.time():
                return await call.interruptible(self._llm.complete(prompt, attempts))
        except LLMError as error:
            fate = error
        except Exception:
            # A bug must not cost the row that tells what became of the request.
            logger.exception("the LLM call failed of a bug")
            fate = LLMError("a fault of this service ended the call; its log has more")
        fate.attempts = tuple(attempts)
        return fate


def _row(
    request: GenerationRequest,
    prompt: Prompt,
    fate: Reply | LLMError,
    llm_ms: int,
    claim: UUID | None,
) -> LogRow:
    told = _failure(fate) if isinstance(fate, LLMError) else _success(fate)
    return LogRow(
        id=uuid7(),
        user_id=request.user_id,
        prompt=prompt.text,
        system=prompt.system,
        provider=fate.provider or prompt.provider,
        model=_short(fate.model or prompt.model, 200),
        attempts=fate.attempts,
        raw_reply=prompts.clean(fate.raw_reply)[0],
        latency_ms=_milliseconds(since=request.started),
        llm_latency_ms=llm_ms,
        request_id=request.request_id,
        created_at=request.arrived_at,
        idempotency_key=request.idempotency_key,
        claim=claim,
        **told,
    )


def _success(reply: Reply) -> dict[str, Any]:
    result, cleaned = prompts.clean(reply.text)
    return {
        "status": "succeeded",
        "result": result,
        "result_cleaned": cleaned,
        "input_tokens": reply.usage.input_tokens,
        "output_tokens": reply.usage.output_tokens,
        "total_tokens": reply.usage.total_tokens,
        "stop_reason": _short(reply.stop_reason, 64),
        "cost_usd": reply.cost_usd,
    }


def _failure(error: LLMError) -> dict[str, Any]:
    return {
        "status": error.fate,
        "error_type": error.slug,
        "error": prompts.clean(error.detail)[0],
    }


def _short(text: str, length: int) -> str:
    return prompts.clean(text[:length])[0]


def _milliseconds(*, since: float) -> int:
    return round((time.monotonic() - since) * 1000)
