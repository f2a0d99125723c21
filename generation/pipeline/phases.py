"""The three phases: read → release → call the LLM → reacquire → write."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from generation.conversation import Text
from generation.effects import resolve
from generation.errors import Abandoned, LLMError, ModelForbidden, UnknownUser
from generation.llm.completion import Outcome
from generation.pipeline import prompts, rows
from generation.pipeline.own_phase import PROVIDER
from generation.records import NOBODYS, Generation, KeyedRow, Prompt
from generation.telemetry import logs, metrics
from generation.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from generation.conf import Settings
    from generation.database.engine import Database
    from generation.limits.limits import Limits
    from generation.llm.client import LLMClient
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.idempotency import Idempotency
    from generation.pipeline.own_phase import OwnPhase
    from generation.privacy.policy import ContentPolicy
    from generation.records import Claim, GenerationRequest, LogRow, Profile
    from generation.store.profiles import Profiles
    from generation.store.prompt_source import SourcedProfiles

logger = logging.getLogger(__name__)


class Log(Protocol):
    """Phase 3's: the `DurableLog`, or what stands before it."""

    def write(self, keyed: KeyedRow) -> Awaitable[None]:
        """Raises nothing. Never cancel it."""
        ...


class Pipeline:
    """One generation, from its request to its answer.

    Phases 1 and 3 are never cancelled; phase 2 ends early if the call is abandoned.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # what the phases use
        self,
        settings: Settings,
        database: Database,
        profiles: Profiles | SourcedProfiles,
        idempotency: Idempotency,
        llm: LLMClient,
        log: Log,
        content: ContentPolicy,
        limits: Limits | None,
        report: Callable[[LogRow, GenerationRequest], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._profiles = profiles
        self._idempotency = idempotency
        self._llm = llm
        self._log = log
        self._content = content
        self._limits = limits
        self._report = report
        self.overhead = Durations()  # of requests, without their LLM calls

    async def generate(self, call: GenerationCall) -> Generation:
        """Runs the three phases. Raises a `StaccatoError`; after phase 1 one log row is left."""
        request = call.request
        logs.subject.set(logs.Subject(call.id, request))  # of the task, which is the call's own
        self._database.track()

        profile = NOBODYS
        if request.user_id is not None:
            profile = await self._profiles.read(request)  # phase 1: borrowed, returned
        if call.own is not None:
            return await self._await_and_write(call, call.own, profile)
        if not (profile.exists or request.messages or request.prompt is not None):
            raise UnknownUser(f"user {request.user_id} does not exist or has no prompt")
        if not request.idempotency_key:
            return await self._ask_and_write(call, profile)
        return await self._idempotency.once(
            request, lambda claim: self._ask_and_write(call, profile, claim)
        )

    async def _ask_and_write(
        self, call: GenerationCall, profile: Profile, claim: Claim | None = None
    ) -> Generation:
        request = call.request
        prompt = self._build_prompt(request, profile)
        self._llm.check(prompt)
        if self._limits is not None:
            call.meter = await self._limits.admit(request, prompt)

        asked = time.monotonic()
        with self._database.no_connection_held():  # a broken promise raises here
            outcome = await self._ask(call, prompt)  # phase 2: 2-8 s, no connection
        return await self._write(call, prompt, outcome, asked, claim)

    async def _await_and_write(
        self, call: GenerationCall, own: OwnPhase, profile: Profile
    ) -> Generation:
        """Phase 2 is the code's own: wait until it says what came of it."""
        if self._limits is not None:
            call.meter = await self._limits.admit(call.request, None)
        own.begin()
        asked = time.monotonic()
        try:
            outcome = await call.interruptible(own.outcome())
        except Abandoned as error:
            outcome = Outcome(None, error, PROVIDER, "", ())
        prompt = own.prompt(self._content.choose(profile.log_content, ""))
        reply = outcome.reply
        if call.meter is not None and reply is not None:
            if reply.cost_usd is None:
                reply = self._llm.priced(outcome.provider, outcome.model, reply)
                outcome = replace(outcome, reply=reply)
            call.meter.settle_own(reply.usage, reply.cost_usd)
        return await self._write(call, prompt, outcome, asked)

    async def _write(
        self,
        call: GenerationCall,
        prompt: Prompt,
        outcome: Outcome,
        asked: float,
        claim: Claim | None = None,
    ) -> Generation:
        """Phase 3. `asked` is when phase 2 began, by `time.monotonic()`."""
        request = call.request
        ended = time.monotonic()
        row = rows.from_outcome(call, prompt, outcome, ended - request.started, ended - asked)
        # Its caller comes back for it, by its key or by its name.
        is_awaited = claim is not None or request.is_background
        kept = self._content.apply(row, prompt.log_content, is_keyed=is_awaited)
        effects = resolve(request.effects, row) if request.effects else ()
        # Phase 3: group commit, or the journal.
        await self._log.write(KeyedRow(kept, claim, effects))
        self._report(kept, request)
        self._note_overhead(time.monotonic() - request.started - (ended - asked))

        reply = outcome.require_reply()
        return Generation(
            id=row.id,
            result=row.result,
            usage=reply.usage,
            provider=row.provider,
            model=row.model,
            latency_ms=row.latency_ms,
            stop_reason=row.stop_reason,
            blocks=reply.blocks,
            original=reply.original,
        )

    def _note_overhead(self, seconds: float) -> None:
        metrics.OVERHEAD.observe(seconds)
        self.overhead.add(seconds)

    def _build_prompt(self, request: GenerationRequest, profile: Profile) -> Prompt:
        wanted = request if request.provider or request.model else profile
        provider, model = self._llm.choose(wanted.provider, wanted.model)
        if not request.grant.covers(provider, model):
            raise ModelForbidden(f"this API key may not use {provider}:{model}")
        return Prompt(
            text=_text_of(request, profile),
            system=profile.system if request.system is None else request.system,
            provider=provider,
            model=model,
            max_tokens=request.max_tokens or profile.max_tokens or self._settings.llm_max_tokens,
            grant=request.grant,
            log_content=self._content.choose(profile.log_content, request.grant.log_content),
            messages=request.messages,
            tools=request.tools,
            options=request.options,
            verbatim=request.verbatim,
        )

    async def _ask(self, call: GenerationCall, prompt: Prompt) -> Outcome:
        """Returns errors, too, because they belong in the log row as much as a reply does."""
        # It outlives the call, and so has its attempts and what has come of the answer.
        context = self._llm.begin(prompt, call.relay, call.request.timeout, call.meter)
        try:
            return await call.interruptible(self._llm.run(context))
        except Abandoned as error:
            return context.failed(error, context.partial())
        except Exception:  # not even a bug may cost the log row
            logger.exception("the LLM call failed because of a bug")
            bug = LLMError("a bug ended the call; the service's log has more")
            return context.failed(bug, context.partial())


def _text_of(request: GenerationRequest, profile: Profile) -> str:
    """Raises what `prompts.render` does."""
    if request.messages:
        return _last_words(request)
    if request.prompt is not None:
        return request.prompt
    return prompts.render(profile, request)


def _last_words(request: GenerationRequest) -> str:
    """Returns the text of the last message that has any: people recognise a conversation by it."""
    for message in reversed(request.messages):
        texts = [part.text for part in message.parts if isinstance(part, Text)]
        if texts:
            return "\n\n".join(texts)
    return ""
