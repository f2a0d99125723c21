"""What the pipeline asks: may this call be made, and what does it settle?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.errors import LimitReached, ModelUnpriced
from generation.limits.alerts import Alerts
from generation.limits.ledger import Ledger, Short
from generation.limits.meter import Meter, Unpriced
from generation.limits.policies import Policies
from generation.limits.refusals import headers, refusal, stand
from generation.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from generation.conf import Settings
    from generation.database.engine import Database
    from generation.limits.blocks import Block
    from generation.limits.ledger import Need
    from generation.limits.rules import Rule
    from generation.llm.client import LLMClient
    from generation.records import GenerationRequest, Grant, Prompt
    from generation.store import Store

    Send = Callable[[dict[str, Any]], Awaitable[None]]


HEADERS_KEPT_S = 0.1  # since a busy key would have the same made thousands of times
HEADERS_KEPT = 1000


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
        self._headers: dict[tuple[tuple[Block, ...], bool], tuple[float, dict[str, str]]] = {}
        self._tariff = llm
        self.policies = Policies(store.limits)
        self.alerts = Alerts(store.limits, send)
        self.ledger = Ledger(
            database, store.limits, ttl_s=store.claims.lease_s, on_used=self.alerts.note_used
        )

    async def refresh(self) -> None:
        """Read the limits if they have changed. Raises `DatabaseUnavailable`."""
        self.ledger.note_time(await self.policies.refresh())

    async def tick(self) -> None:
        """About once a second. Raises `DatabaseUnavailable`."""
        if not self.policies.are_known:  # since the database was away; calls wait for it
            await self.refresh()
        await self.ledger.tick()

    async def tidy(self) -> None:
        """Raises `DatabaseUnavailable`."""
        if not self.policies.is_empty:
            await self._tables.tidy()

    def refuse_early(self, request: GenerationRequest) -> None:
        """Raises `LimitReached` where the last answer, a moment ago, says that nothing is left, so
        that a flood costs little. Not for a request that may be answered from the log."""
        if self.policies.is_empty or not self.ledger.has_refused or request.idempotency_key:
            return
        needs = []
        for rule, subject in self.policies.of(request.grant.key_id, request.user_id):
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
        if self.policies.is_empty:
            return None
        grant = request.grant
        rules = self.policies.of(grant.key_id, request.user_id)
        if is_free:
            rules = tuple(each for each in rules if each[0].unit in {"requests", "in_flight"})
        if not rules:
            return None
        meter = Meter(self.ledger, self._tariff, rules, prompt)
        provider, model = (prompt.provider, prompt.model) if prompt else ("", "")
        try:
            await meter.open(provider, model, request.started)
        except Short as short:
            block = short.block
            fitting = meter.fitting_max_tokens(block, provider, model)
            raise self._refusal((block, short.amount), grant, fitting) from None
        except Unpriced as unpriced:
            metrics.LIMIT_REFUSALS.labels("usd", unpriced.rule.scope).inc()
            raise ModelUnpriced(
                f"a budget in US dollars applies, and {provider}:{model} has no known price; an"
                " operator can give it one with LLM_PRICES",
                members={"violated-policies": [unpriced.rule.name], "scope": unpriced.rule.scope},
            ) from None
        self._count_shadows(meter)
        return meter

    def headers(self, meter: Meter | None, grant: Grant) -> dict[str, str]:
        """Returns what an answer says of the limits of its caller's own key or user."""
        if meter is None or self._style == "off":
            return {}
        now, key = self.ledger.timestamp(), (meter.blocks, grant.is_service)
        made = self._headers.get(key)
        if made is None or not 0 <= now - made[0] < HEADERS_KEPT_S:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            made = self._headers[key] = (now, self._make_headers(meter, grant, now))
        return made[1]

    def _make_headers(self, meter: Meter, grant: Grant, now: float) -> dict[str, str]:
        blocks = [
            block for block in meter.blocks if block.rule.is_enforced and _is_own(block.rule, grant)
        ]
        return headers(blocks, now, self._style)

    async def standing(self, grant: Grant, user_id: object) -> list[dict[str, Any]]:
        """Returns how the limits of a caller's own key or user stand. Raises
        `DatabaseUnavailable`."""
        if self.policies.is_empty:
            return []
        blocks = [
            self.ledger.block(rule, subject)
            for rule, subject in self.policies.of(grant.key_id, user_id)
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

    def _count_shadows(self, meter: Meter) -> None:
        for block in meter.blocks:
            if not block.rule.is_enforced and block.free + block.left < 0:
                metrics.LIMIT_SHADOW.labels(block.rule.unit, block.rule.scope).inc()


def _is_own(rule: Rule, grant: Grant) -> bool:
    """Whether the caller may read how much of a limit is used. A service's key speaks for many
    users, whose amounts are none of its business."""
    return rule.scope == "key" or (rule.scope == "user" and not grant.is_service)
