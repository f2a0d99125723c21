"""The LLM client: one prompt in, one reply or one typed error out, inside one deadline."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from generation.errors import LLMError, ModelNotAllowed
from generation.llm import policy
from generation.llm.prices import Prices
from generation.llm.providers.anthropic import Anthropic
from generation.llm.providers.openai import OpenAI
from generation.llm.providers.simulated import Simulated
from generation.llm.transport import Transport
from generation.llm.upstream import Call, Upstream
from generation.records import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from decimal import Decimal

    import httpx

    from generation.conf import Settings
    from generation.llm.providers.base import Answer, Provider
    from generation.records import Attempt, Prompt

# A new provider is a file beside this one and a line here (and its settings in conf.py).
_PROVIDERS: dict[str, Callable[[Settings, httpx.AsyncBaseTransport], Provider]] = {
    Anthropic.name: Anthropic,
    OpenAI.name: OpenAI,
    Simulated.name: Simulated,
}

Target = tuple[str, str]  # provider, model


class LLMClient:
    """Build it with `open()`, in the event loop that uses it."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        self.in_flight = 0
        self._timeout = settings.llm_timeout
        self._clock = asyncio.get_running_loop().time
        named: set[str] = {
            settings.default_provider,
            *dict(settings.llm_allowed),
            *dict(settings.llm_fallbacks),
        }
        self._upstreams: dict[str, Upstream] = {
            name: Upstream(_PROVIDERS[name](settings, transport), settings)
            for name in sorted(named)
        }
        self._default = self._complete_target((settings.default_provider, settings.llm_model))
        further = map(self._complete_target, settings.llm_allowed)
        self._allowed: tuple[Target, ...] = tuple(dict.fromkeys((self._default, *further)))
        self._fallbacks = tuple(map(self._complete_target, settings.llm_fallbacks))
        self._chain = lru_cache(maxsize=256)(self._build_chain)
        is_priced = any(upstream.provider.price_list for upstream in self._upstreams.values())
        self._prices = Prices() if is_priced else None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[LLMClient]:
        transport = Transport(connect_timeout=settings.llm_connect_timeout)
        async with transport:
            yield cls(settings, transport)

    def choose(self, provider: str, model: str) -> Target:
        """The provider and model to ask; '' leaves the choice to the settings.

        Raises `ModelNotAllowed`.
        """
        for target in self._allowed:
            if provider in {"", target[0]} and model in {"", target[1]}:
                return target
        wanted = ":".join(filter(None, (provider, model)))
        offered = ", ".join(":".join(target) for target in self._allowed)
        raise ModelNotAllowed(f"{wanted} is not offered here; these are: {offered}")

    async def complete(self, prompt: Prompt, attempts: list[Attempt] | None = None) -> Reply:
        """Ask the prompt's provider, then the fallbacks, within LLM_TIMEOUT in total.

        Raises subclasses of `LLMError` with provider, model and attempts filled in. Cancelling
        closes the connection to the provider; a list that is given as `attempts` then tells
        what had been tried.
        """
        attempts = [] if attempts is None else attempts
        # Unique is enough, and the system's randomness would cost a tenth of the call.
        idempotency_key = f"{random.getrandbits(128):032x}"
        call = Call(prompt, idempotency_key, self._clock() + self._timeout, attempts)
        self.in_flight += 1
        try:
            provider, answer = await self._ask_in_turn(call)
        except LLMError as error:
            error.attempts = tuple(call.attempts)
            raise
        finally:
            self.in_flight -= 1
        return Reply(
            text=answer.text,
            usage=answer.usage,
            provider=provider.name,
            model=answer.model,
            stop_reason=answer.stop_reason,
            attempts=tuple(call.attempts),
            cost_usd=self._cost(provider, answer),
            raw_reply=answer.raw_reply,
        )

    async def _ask_in_turn(self, call: Call) -> tuple[Provider, Answer]:
        chain = self._chain(call.prompt.provider, call.prompt.model)
        if call.prompt.grant.targets:
            chain = (chain[0], *(each for each in chain[1:] if call.prompt.grant.covers(*each)))
        last = len(chain) - 1
        for position, (name, model) in enumerate(chain):
            upstream = self._upstreams[name]
            try:
                answer = await upstream.ask(call, model, has_fallback=position < last)
            except LLMError as error:
                out_of_time = self._clock() >= call.deadline
                if position == last or out_of_time or not policy.fallback_helps(error):
                    raise
            else:
                return upstream.provider, answer
        raise AssertionError("a chain holds at least one target")

    def _build_chain(self, provider: str, model: str) -> tuple[Target, ...]:
        return tuple(dict.fromkeys((self.choose(provider, model), *self._fallbacks)))

    def _complete_target(self, target: Target) -> Target:
        provider, model = target
        return provider, model or self._upstreams[provider].provider.default_model

    def _cost(self, provider: Provider, answer: Answer) -> Decimal | None:
        if self._prices is None:
            return None
        return self._prices.cost(provider.price_list, answer.model, answer.usage)
