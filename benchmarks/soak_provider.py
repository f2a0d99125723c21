"""The soak's provider: mostly well, sometimes failing, and for seconds failing altogether."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.support.dialects import AnthropicDialect
from tests.support.provider import Exchange, Provider, hangs, resets, says

LATENCY_S = (0.1, 0.5)
SLOW_S = (1.0, 1.6)
FAULTS_IN_CALM = 0.1
FAULTS_IN_STORM = 0.9
STORM_S = 3.0
CALM_S = (4.0, 8.0)

_TAG = re.compile(rb"soak-\d+-")
_dialect = AnthropicDialect()
_FAILING = {
    "429": says(429, _dialect.error("limited"), retry_after="1"),
    "500": says(500, _dialect.error("other")),
    "bad JSON": says(200, b'{"type": "message", "content": [{"te'),
    "empty": says(200, b""),
    "reset": resets,
    "hang": hangs,
}
KINDS = ("slow", *_FAILING)


HANGS_UP_WITHIN_S = 1.0  # a client that has read an answer keeps the connection for 30 s


@dataclass(slots=True)
class Paid:
    """An answer that was sent in full."""

    asked: float
    answered: float
    hung_up: bool = False  # the client closed the connection at once


class Moody:
    """Answers by its mood. Whose answer it has sent in full is paid for."""

    def __init__(self, chance: random.Random) -> None:
        self.server = Provider(self._behave, keep=False)
        self.paid: dict[str, list[Paid]] = defaultdict(list)
        self.did: Counter[str] = Counter()
        self._chance = chance
        self._storm = ""
        self._good = says(200, _dialect.answer())

    async def rage(self) -> None:
        """One kind of failure after another, until it is cancelled."""
        try:
            while True:
                for kind in KINDS:
                    await asyncio.sleep(self._chance.uniform(*CALM_S))
                    self._storm = kind
                    await asyncio.sleep(STORM_S)
                    self._storm = ""
        finally:
            self._storm = ""

    async def _behave(self, exchange: Exchange) -> None:
        asked = time.monotonic()
        kind = self._kind()
        self.did[kind] += 1
        await asyncio.sleep(self._chance.uniform(*(SLOW_S if kind == "slow" else LATENCY_S)))
        if kind in _FAILING:
            await _FAILING[kind](exchange)
            return
        await self._good(exchange)  # a caller that has left ends this task before
        tag = _TAG.search(exchange.body)[0].decode()
        paid = Paid(asked, time.monotonic())
        self.paid[tag].append(paid)
        asyncio.get_running_loop().call_later(HANGS_UP_WITHIN_S, self._look_again, exchange, paid)

    @staticmethod
    def _look_again(exchange: Exchange, paid: Paid) -> None:
        paid.hung_up = exchange.is_closed

    def _kind(self) -> str:
        if self._chance.random() < (FAULTS_IN_STORM if self._storm else FAULTS_IN_CALM):
            return self._storm or self._chance.choice(KINDS)
        return "well"
