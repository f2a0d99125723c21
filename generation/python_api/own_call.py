"""`generation()`: the caller's own LLM library in phase 2, our promises round it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from generation.connections.held import require_sync
from generation.connections.release import Released
from generation.errors import (
    AbandonedByClient,
    LLMError,
    LLMTimedOut,
    NoReply,
    OwnCallFailed,
    StaccatoError,
)
from generation.llm.completion import Outcome
from generation.pipeline.own_phase import PROVIDER, OwnPhase
from generation.python_api import loop_thread
from generation.python_api.requests import make_own_request
from generation.records import Reply, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal
    from uuid import UUID

    from generation.effects import Effect
    from generation.pipeline.call import GenerationCall
    from generation.python_api.requests import User
    from generation.records import Generation, GenerationRequest
    from generation.runtime.process import Runtime

_ERROR_CHARS = 2000
_INPUT = ("input_tokens", "prompt_tokens", "request_tokens")
_OUTPUT = ("output_tokens", "completion_tokens", "response_tokens")


def generation(
    user: User = None,
    *,
    kind: str = "",
    metadata: Mapping[str, str] | None = None,
    effects: Sequence[Effect] = (),
) -> OwnGeneration:
    """A generation whose LLM call is yours, with whatever library:

        async with generation(request.user, kind="summary") as g:
            result = await agent.run(g.prompt(text))
            g.reply(result.output, usage=result.usage(), model="gpt-5-mini")

    Entering gives your Django connections back, and reads whether the user may generate. Leaving
    commits one row, or puts it into the journal: with the reply, or with what kept it from coming,
    also if the block raises or is cancelled. `kind` is kept in the row's metadata. In synchronous
    code, write `with`.

    Entering raises `UnknownUser`, `HeldInTransaction` (as `generate()` does), `TooManyInFlight`, or
    another `StaccatoError`; leaving raises `NoReply` if `reply()` was not called.
    """
    given = {**({"kind": kind} if kind else {}), **(metadata or {})}
    return OwnGeneration(make_own_request(user, given, effects))


class OwnGeneration:
    """One such generation. Enter it once."""

    def __init__(self, request: GenerationRequest) -> None:
        self.id: UUID | None = None  # the log row's, once the block is entered
        self.generation: Generation | None = None  # after the block, if there is a reply
        self._request = request
        self._released = Released(must=False)
        self._reply: tuple[Reply, str, str] | None = None
        self._own: OwnPhase
        self._call: GenerationCall
        self._runtime: Runtime
        self._text = self._system = ""

    def prompt(self, text: str, *, system: str = "") -> str:
        """Note what is sent, for the row. Returns the text."""
        self._text, self._system = text, system
        return text

    def reply(  # noqa: PLR0913  # facts, most of them optional
        self,
        text: str,
        *,
        usage: Usage | Mapping[str, Any] | object = None,
        model: str = "",
        provider: str = PROVIDER,
        stop_reason: str = "end_turn",
        cost_usd: Decimal | None = None,
    ) -> None:
        """Say what came back. `usage` is anything that has `input_tokens` and `output_tokens`, or
        `prompt_tokens` and `completion_tokens`, as attributes or keys. Called again, it replaces
        what was said."""
        found = usage if isinstance(usage, Usage) else Usage(*_tokens(usage))
        self._reply = (Reply(text, found, stop_reason, cost_usd), provider, model)

    async def __aenter__(self) -> Self:
        await self._released.__aenter__()
        self._runtime = await loop_thread.aruntime()
        await self._runtime.arun(self._begin())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_traceback: object
    ) -> None:
        outcome = self._outcome(error)
        if error is not None and not isinstance(error, Exception):
            # It is cancelled: the row is the process's, which does not need us to wait.
            self._runtime.loop.call_soon_threadsafe(self._settle, outcome)
        else:
            await self._runtime.arun(self._end(outcome, raised=error is not None))
        await self._released.__aexit__(kind)

    def __enter__(self) -> Self:
        require_sync("write `async with generation(…):`")
        self._released.__enter__()
        self._runtime = loop_thread.runtime()
        self._runtime.run(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_traceback: object
    ) -> None:
        self._runtime.run(self._end(self._outcome(error), raised=error is not None))
        self._released.__exit__(kind)

    async def _begin(self) -> None:
        """Returns when phase 1 is over. Raises its error."""
        self._own = own = OwnPhase()
        self._call = call = self._runtime.start(self._request, own)
        self.id = call.id
        try:
            await asyncio.wait((own.begun, call.task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            call.abandon(AbandonedByClient("the caller left before its LLM call began"))
            raise
        if not own.begun.done():
            await call.task

    def _settle(self, outcome: Outcome) -> None:
        self._own.text, self._own.system = self._text, self._system
        self._own.settle(outcome)

    async def _end(self, outcome: Outcome, *, raised: bool) -> None:
        """Returns when the row is safe."""
        self._settle(outcome)
        try:
            self.generation = await asyncio.shield(self._call.task)
        except StaccatoError:
            if not raised:
                raise

    def _outcome(self, error: BaseException | None) -> Outcome:
        if self._reply is None:
            return Outcome(None, _to_llm_error(error), PROVIDER, "", ())
        reply, provider, model = self._reply
        # What was said before an error was paid for.
        failure = None if error is None else _to_llm_error(error)
        return Outcome(reply, failure, provider, model, ())


def _to_llm_error(error: BaseException | None) -> LLMError:
    if error is None:
        return NoReply("the block of generation() ended without a call of reply()")
    if isinstance(error, LLMError):
        return error
    detail = f"{type(error).__name__}: {error}"[:_ERROR_CHARS]
    if isinstance(error, TimeoutError):
        return LLMTimedOut(detail)
    if isinstance(error, Exception):
        return OwnCallFailed(detail)
    return AbandonedByClient("the code that asked was cancelled before the answer was complete")


def _tokens(usage: object) -> tuple[int | None, int | None]:
    return _read(usage, _INPUT), _read(usage, _OUTPUT)


def _read(usage: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
        if isinstance(value, int) and value >= 0:
            return value
    return None
