"""What the pipeline asks: may this call be made, and what does it settle?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from generation.errors import LimitReached, ModelUnpriced
from generation.limits.alerts import Alerts
from generation.limits.ledger import Ledger, Short
from generation.limits.meter import Meter
from generation.limits.policies import Policies
from generation.limits.refusals import headers, refusal, stand
from generation.limits.terms import NO_HEADERS, Caller, Headers, Unpriced
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from generation.conf import Settings
    from generation.database.engine import Database
    from generation.limits.ledger import Need
    from generation.limits.rules import Rule
    from generation.limits.terms import Terms
    from generation.llm.client import LLMClient
    from generation.records import GenerationRequest, Grant, Prompt
    from generation.store import Store

    Send = Callable[[dict[str, Any]], Awaitable[None]]


HEADERS_KEPT_S = 0.1  # since a busy key would have the same made thousands of times


class Limits:
    """One per process."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Store,
        llm: LLMClient,
        send: Send | None = None,
    ) -> None:
        self._style = settings.ratelimit_headers
        self._tables = store.limits
        self.alerts = Alerts(store.limits, send)
        self.ledger = Ledger(
            database, store.limits, ttl_s=store.claims.lease_s, on_used=self.alerts.note_used
        )
        self.policies = Policies(store.limits, lambda rules: Caller(rules, self.ledger, llm))
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")  # when the last reading began, by the ledger's clock

    async def refresh(self) -> None:
        """Read the limits if they have changed: those that were set before this call are known
        after it. All callers that arrive during one reading share the next. Raises
        `DatabaseUnavailable`."""
        asked_at = self.ledger.clock()
        async with self._reading:
            if self._read_at > asked_at:
                return
            read_at = self.ledger.clock()
            self.ledger.note_time(await self.policies.refresh())
            self._read_at = read_at

    async def tick(self) -> None:
        """About once a second. Raises `DatabaseUnavailable`."""
        if not self.policies.are_known:  # since the database was away; calls wait for it
            await self.refresh()
        await self.ledger.tick()

    async def tidy(self) -> None:
        """Raises `DatabaseUnavailable`."""
        if self.policies.rules:
            await self._tables.tidy()

    def refuse_early(self, request: GenerationRequest) -> None:
        """Raises `LimitReached` where the last answer, a moment ago, says that nothing is left, so
        that a flood costs little. Not for a request that may be answered from the log."""
        if not self.ledger.has_refused or request.idempotency_key:
            return
        caller = self.policies.of(request.grant.key_id, request.user_id)
        if caller is None:
            return
        needs = []
        for rule, subject in caller.rules:
            if rule.is_targeted or rule.unit == "usd":  # they depend on who will be asked
                continue
            block = self.ledger.find(rule, subject)
            if block is not None and block is self.ledger.block(rule, subject):
                needs.append((block, 1))
        if need := self.ledger.hopeless(needs):
            raise self._refusal(need, request.grant)

    async def admit(
        self, request: GenerationRequest, prompt: Prompt | None, *, is_free: bool = False
    ) -> Meter | None:
        """Reserve what a call may cost. Returns None where nothing limits it; else the caller has
        to `release()` what is returned. `is_free`: it costs neither tokens nor money.

        Raises `LimitReached` or `DatabaseUnavailable`.
        """
        grant = request.grant
        caller = self.policies.of(grant.key_id, request.user_id)
        if caller is None:
            return None
        provider, model = (prompt.provider, prompt.model) if prompt else ("", "")
        now = self.ledger.clock()
        try:
            terms = caller.free(provider, model) if is_free else caller.terms(provider, model, now)
            if not terms.blocks:
                return None
            meter = Meter(caller, terms, prompt)
            if not meter.open():
                await meter.open_slowly(request.started)
        except Short as short:
            fitting = meter.fitting_max_tokens(short.block)
            raise self._refusal((short.block, short.amount), grant, fitting) from None
        except Unpriced as unpriced:
            metrics.LIMIT_REFUSALS.labels("usd", unpriced.rule.scope).inc()
            raise ModelUnpriced(
                f"a budget in US dollars applies, and {provider}:{model} has no known price; an"
                " operator can give it one with LLM_PRICES",
                members={"violated-policies": [unpriced.rule.name], "scope": unpriced.rule.scope},
            ) from None
        if terms.has_shadows:
            self._count_shadows(terms)
        return meter

    def headers(self, meter: Meter | None, grant: Grant) -> Headers:
        """Returns what an answer says of the limits of its caller's own key or user."""
        if meter is None or self._style == "off":
            return NO_HEADERS
        now, kept = self.ledger.timestamp(), meter.terms.headers
        made = kept.get(grant.is_service)
        if made is None or not 0 <= now - made[0] < HEADERS_KEPT_S:
            texts = self._make_headers(meter.terms, grant, now)
            made = kept[grant.is_service] = (now, Headers.of(texts))
        return made[1]

    def _make_headers(self, terms: Terms, grant: Grant, now: float) -> dict[str, str]:
        blocks = [
            block for block in terms.blocks if block.rule.is_enforced and _is_own(block.rule, grant)
        ]
        return headers(blocks, now, self._style)

    async def standing(self, grant: Grant, user_id: object) -> list[dict[str, Any]]:
        """Returns how the limits of a caller's own key or user stand. Raises
        `DatabaseUnavailable`."""
        caller = self.policies.of(grant.key_id, user_id)
        blocks = [
            self.ledger.block(rule, subject)
            for rule, subject in (caller.rules if caller else ())
            if _is_own(rule, grant)
        ]
        await self.ledger.look(blocks)
        now = self.ledger.now()
        return [stand(block, now) for block in blocks]

    def _refusal(self, need: Need, grant: Grant, fitting: int | None = None) -> LimitReached:
        block, amount = need
        metrics.LIMIT_REFUSALS.labels(block.rule.unit, block.rule.scope).inc()
        now = self.ledger.now()
        is_own = _is_own(block.rule, grant)
        error = refusal(block, amount, now, is_own=is_own, fitting_max_tokens=fitting)
        if error.is_spent:
            self.alerts.note_used(block, is_refused=True)
        if is_own:
            error.more_headers |= headers([block], self.ledger.timestamp(), self._style)
        return error

    def _count_shadows(self, terms: Terms) -> None:
        for block in terms.blocks:
            if not block.rule.is_enforced and block.free + block.left < 0:
                metrics.LIMIT_SHADOW.labels(block.rule.unit, block.rule.scope).inc()


def _is_own(rule: Rule, grant: Grant) -> bool:
    """Whether the caller may read how much of a limit is used. A service's key speaks for many
    users, whose amounts are none of its business."""
    return rule.scope == "key" or (rule.scope == "user" and not grant.is_service)
