"""The soak's callers: half of their requests have a key, some leave, and errors are repeated."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.http import Answer, Wire
from tests.support.service import Service

LEAVES = 0.06
LEAVES_WITHIN_S = 0.6
TWICE_AT_ONCE = 0.1
AGAIN_AFTER_SUCCESS = 0.3
AGAIN_WITHIN_S = 60.0
AGAIN_AFTER_ERROR_S = (0.3, 1.5)
LARGE = 0.2
LARGE_BYTES = 40_000
PAUSE_AFTER_ERROR_S = (0.1, 0.5)
LONGEST_S = 60.0

EXPECTED = {200, 409, 429, 502, 503, 504}
WITH_RETRY_AFTER = {409, 429, 503}


@dataclass(slots=True)
class Worker:
    """One process of the service; a killed one stays to be asked when it ended."""

    name: str
    service: Service
    killed: float | None = None


@dataclass(slots=True)
class Attempt:
    worker: Worker
    began: float
    ended: float = 0.0
    outcome: str = ""  # a status, or how it ended without one


@dataclass(slots=True)
class Request:
    """One generation that somebody wants; it is repeated only if it has a key."""

    tag: str
    key: str
    user: int
    body: bytes
    attempts: list[Attempt] = field(default_factory=list)
    delivered: list[tuple[float, str, str]] = field(default_factory=list)  # when, id, request id


class Callers:
    def __init__(self, workers: Callable[[], list[Worker]], chance: random.Random) -> None:
        self.requests = 0
        self.keyed: dict[str, Request] = {}
        self.answered: dict[str, str] = {}  # the answer's id: its first request's id
        self.outcomes: Counter[str] = Counter()
        self.longest_s = 0.0
        self.faults: list[str] = []  # what no caller may meet
        self.is_open = True  # for new requests and for repetitions of what was answered
        self.is_paused = False
        self._workers = workers
        self._chance = chance
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, int, Request]] = []
        self._busy = 0

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(self._call_again_and_again())

    @property
    def is_done(self) -> bool:
        return not self.is_open and not self._busy and not self._due

    @property
    def unanswered_keys(self) -> list[str]:
        return [key for key, request in self.keyed.items() if not request.delivered]

    async def _call_again_and_again(self) -> None:
        while not self.is_done:
            request = self._next()
            if request is None:
                await asyncio.sleep(0.05)
                continue
            self._busy += 1
            try:
                if request.key and self._chance.random() < TWICE_AT_ONCE:
                    await asyncio.gather(self._attempt(request), self._attempt(request))
                else:
                    await self._attempt(request)
                self._plan(request)
            finally:
                self._busy -= 1
            if request.attempts and request.attempts[-1].outcome != "200":
                await asyncio.sleep(self._chance.uniform(*PAUSE_AFTER_ERROR_S))

    def _next(self) -> Request | None:
        if self.is_paused:
            return None
        if self._due and (self._due[0][0] <= time.monotonic()):
            return heapq.heappop(self._due)[2]
        if not self.is_open:
            return None
        number = next(self._numbers)
        self.requests += 1
        tag = f"soak-{number}-"
        filler = "x" * LARGE_BYTES if self._chance.random() < LARGE else ""
        request = Request(
            tag,
            f"key-{number}" if number % 2 else "",
            number % 3 + 1,
            json.dumps({"input": f"{tag} {filler}"}).encode(),
        )
        if request.key:
            self.keyed[request.key] = request
        return request

    def _plan(self, request: Request) -> None:
        """Repeat what failed, and some of what was answered."""
        if not request.key:
            return
        if not request.attempts or request.attempts[-1].outcome != "200":
            self._repeat(request, self._chance.uniform(*AGAIN_AFTER_ERROR_S))
        elif self.is_open and self._chance.random() < AGAIN_AFTER_SUCCESS:
            self._repeat(request, self._chance.uniform(0, AGAIN_WITHIN_S))

    def _repeat(self, request: Request, wait: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + wait, next(self._numbers), request))

    def repeat_since(self, moment: float) -> None:
        """Ask again, at once, for what was answered since then: is it known already?"""
        for request in self.keyed.values():
            if request.delivered and request.delivered[-1][0] > moment:
                self._repeat(request, 0)

    async def pause(self) -> None:
        """Returns when nobody calls."""
        self.is_paused = True
        while self._busy:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """No new requests; what was answered is repeated at once, then no more."""
        self.is_open = False
        self._due = [(min(at, time.monotonic()), number, it) for at, number, it in self._due]
        heapq.heapify(self._due)

    async def _attempt(self, request: Request) -> None:
        workers = self._workers()
        if not workers:
            return
        attempt = Attempt(self._chance.choice(workers), time.monotonic())
        request.attempts.append(attempt)
        request_id = f"{request.tag}{len(request.attempts)}"
        try:
            async with asyncio.timeout(LONGEST_S):
                answer = await self._send(attempt.worker.service.port, request, request_id)
        except TimeoutError:
            attempt.outcome = "no answer"
            self.faults.append(f"{request_id}: no answer within {LONGEST_S:g} s")
        except (OSError, ValueError) as error:
            attempt.outcome = "cut off"
            if attempt.worker.killed is None:
                await asyncio.sleep(0.2)  # the kill may be about to be noted
            if attempt.worker.killed is None:
                self.faults.append(f"{request_id}: {attempt.worker.name} lives, and {error!r}")
        else:
            attempt.outcome = str(answer.status) if answer else "left"
            if answer:
                self._note(request, request_id, answer)
        attempt.ended = time.monotonic()
        self.outcomes[attempt.outcome] += 1
        if attempt.outcome.isdigit():
            self.longest_s = max(self.longest_s, attempt.ended - attempt.began)

    async def _send(self, port: int, request: Request, request_id: str) -> Answer | None:
        """Returns None if the caller left."""
        headers = [("X-Request-ID", request_id)]
        if request.key:
            headers.append(("Idempotency-Key", request.key))
        path = f"/api/v1/generate/{request.user}"
        wire = await Wire.begin(port, "POST", path, request.body, headers)
        if self._chance.random() < LEAVES:
            await asyncio.sleep(self._chance.uniform(0, LEAVES_WITHIN_S))
            with contextlib.suppress(OSError):  # the service has closed the connection before
                await wire.leave()
            return None
        return await wire.answer()

    def _note(self, request: Request, request_id: str, answer: Answer) -> None:
        if answer.status == 200:
            generation = answer.json()["id"]
            request.delivered.append((time.monotonic(), generation, request_id))
            first = self.answered.setdefault(generation, request_id)
            if not first.startswith(request.tag):
                self.faults.append(f"{request_id}: has the answer of {first}")
        elif answer.status not in EXPECTED:
            self.faults.append(f"{request_id}: {answer.status} {answer.body[:300]!r}")
        elif answer.status in WITH_RETRY_AFTER and "retry-after" not in answer.headers:
            self.faults.append(f"{request_id}: {answer.status} without Retry-After")
