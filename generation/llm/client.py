"""The LLM client: one prompt in, one outcome out, inside one deadline."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from generation.conversation import NO_OPTIONS
from generation.errors import LLMError, ParameterNotSupported
from generation.llm import policy
from generation.llm.completion import CompletionContext
from generation.llm.offer import Offer, with_model
from generation.llm.prices import Prices
from generation.llm.providers import registry
from generation.llm.providers.own import OwnProvider
from generation.llm.transport import Transport
from generation.llm.upstream import Upstream
from generation.records import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from generation.conf import Settings, Target
    from generation.llm.completion import Meter, Outcome
    from generation.llm.prices import PricedModel, Quote
    from generation.llm.providers.base import Answer, Provider
    from generation.llm.streamed_attempt import Relay
    from generation.records import Prompt, Usage


class LLMClient:
    """Build it with `open()`, in the event loop that uses it."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None:
        self.in_flight = 0
        self.transport = transport
        self._timeout = settings.llm_timeout
        self._clock = asyncio.get_running_loop().time
        self._upstreams = {
            name: Upstream(registry.find(settings, name)(settings, transport), settings)
            for name in sorted(registry.named_providers(settings))
        }
        self.offer = Offer(settings)
        self.choose = self.offer.choose
        self._fallbacks = tuple(with_model(settings, each) for each in settings.llm_fallbacks)
        self._chain = lru_cache(maxsize=256)(self._build_chain)
        # All that a completion may ask.
        self.targets = tuple(dict.fromkeys((*self.offer.targets, *self._fallbacks)))
        is_priced = any(upstream.provider.price_list for upstream in self._upstreams.values())
        self._prices = (
            Prices(settings.llm_prices, with_table=is_priced)
            if is_priced or settings.llm_prices
            else None
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[LLMClient]:
        transport = Transport(connect_timeout=settings.llm_connect_timeout)
        async with transport:
            client = cls(settings, transport)
            try:
                yield client
            finally:
                await client.aclose()

    @property
    def open_circuits(self) -> tuple[str, ...]:
        """The names of the providers that fail, and so are not called."""
        return tuple(name for name, each in self._upstreams.items() if each.is_circuit_open)

    async def aclose(self) -> None:
        """Log the failures that were not logged yet, and close what providers have opened."""
        for upstream in self._upstreams.values():
            upstream.failures.close()
            if isinstance(upstream.provider, OwnProvider):
                await upstream.provider.aclose()

    async def complete(self, prompt: Prompt) -> Outcome:
        """Ask the prompt's provider, then the fallbacks, within LLM_TIMEOUT in total.

        If the call may be cancelled, `begin()` and `run()` it instead: the context keeps the
        attempts.
        """
        return await self.run(self.begin(prompt))

    def check(self, prompt: Prompt) -> None:
        """Raises `ParameterNotSupported` if the prompt's provider has no place for a part of it."""
        if _is_plain(prompt):
            return
        provider = self._upstreams[prompt.provider].provider
        if lacking := provider.unknown_parameter(prompt):
            raise ParameterNotSupported(f"{provider.name} does not support {lacking}")

    def begin(
        self,
        prompt: Prompt,
        relay: Relay | None = None,
        limit_s: float | None = None,
        meter: Meter | None = None,
    ) -> CompletionContext:
        """The deadline starts to run here: LLM_TIMEOUT, or `limit_s` if that is less. With a relay,
        the answer is streamed into it. The meter decides about attempts after the first."""
        # Unique is enough: the system's randomness would cost a tenth of the call.
        idempotency_key = f"{random.getrandbits(128):032x}"
        now = self._clock()
        deadline = now + min(self._timeout, limit_s or self._timeout)
        return CompletionContext(
            prompt, idempotency_key, deadline, self.priced, relay, meter, began=now
        )

    async def run(self, context: CompletionContext) -> Outcome:
        """Cancelling it closes the connection to the provider."""
        self.in_flight += 1
        try:
            provider, answer = await self._ask_chain(context)
        except LLMError as error:
            return context.failed(error, self._price_partial(context, error))
        finally:
            self.in_flight -= 1
        asked = context.attempts[-1].model
        quote = self.quote(provider.name, answer.model, answer.usage, asked)
        reply = Reply(
            text=answer.text,
            usage=answer.usage,
            stop_reason=answer.stop_reason,
            cost_usd=quote.cost if quote else None,
            price=quote.price if quote else "",
            raw_reply=answer.raw_reply,
            blocks=answer.blocks,
            original=answer.original if _is_verbatim(context.prompt, provider) else None,
        )
        return context.succeeded(reply, provider.name, answer.model)

    async def _ask_chain(self, context: CompletionContext) -> tuple[Provider, Answer]:
        chain = self._chain_for(context.prompt)
        last = len(chain) - 1
        failure: LLMError | None = None
        for position, (name, model) in enumerate(chain):
            upstream = self._upstreams[name]
            if failure and context.meter and not await context.meter.extend(name, model):
                continue
            try:
                answer = await upstream.ask(context, model, has_fallback=position < last)
            except LLMError as error:
                out_of_time = self._clock() >= context.deadline
                if position == last or out_of_time or not policy.fallback_helps(error):
                    raise
                if context.is_committed:
                    raise
                failure = error
            else:
                return upstream.provider, answer
        assert failure is not None, "a chain holds at least one target"
        raise failure

    def _chain_for(self, prompt: Prompt) -> tuple[Target, ...]:
        first, *others = self._chain(prompt.provider, prompt.model)
        if not others:
            return (first,)
        return (first, *(target for target in others if self._may_follow(prompt, target)))

    def _may_follow(self, prompt: Prompt, target: Target) -> bool:
        """Whether it may answer in another's place: the key allows it, and it knows all that is
        asked for."""
        if prompt.grant.targets and not prompt.grant.covers(*target):
            return False
        upstream = self._upstreams[target.provider]
        return _is_plain(prompt) or not upstream.provider.unknown_parameter(prompt)

    def _build_chain(self, provider: str, model: str) -> tuple[Target, ...]:
        return tuple(dict.fromkeys((self.choose(provider, model), *self._fallbacks)))

    def _price_partial(self, context: CompletionContext, error: LLMError) -> Reply | None:
        if error.partial is None:
            return None
        asked = context.attempts[-1]
        return self.priced(asked.provider, asked.model, error.partial)

    def priced(self, provider: str, model: str, reply: Reply, asked: str = "") -> Reply:
        """Returns the reply with its cost, and the price that says so; as it is where none does."""
        found = self.quote(provider, model, reply.usage, asked)
        return reply if found is None else replace(reply, cost_usd=found.cost, price=found.price)

    def quote(self, provider: str, model: str, usage: Usage, asked: str = "") -> Quote | None:
        """Returns what tokens cost; None if the price, or how many they are, is unknown.

        `asked`: the model's name in the request, if the answer may have another.
        """
        if self._prices is None:
            return None
        return self._prices.quote(provider, self._price_list(provider), model, usage, asked)

    def price(self, provider: str, model: str, asked: str = "") -> PricedModel | None:
        """Returns what tokens of a provider's model cost; None: nobody knows."""
        if self._prices is None:
            return None
        return self._prices.find(provider, self._price_list(provider), model, asked)

    def _price_list(self, provider: str) -> str:
        upstream = self._upstreams.get(provider)  # None of a project's own call
        return upstream.provider.price_list if upstream else provider


def _is_plain(prompt: Prompt) -> bool:
    """Whether every provider knows all of it, because it is but a text."""
    return not prompt.messages and not prompt.tools and prompt.options is NO_OPTIONS


def _is_verbatim(prompt: Prompt, provider: Provider) -> bool:
    """Whether the provider got a client's own request, so that its answer is in that dialect."""
    return prompt.verbatim is not None and prompt.verbatim.dialect == provider.name
