"""Runs the load test: thousands of callers at once, and what they and the service measured."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import orjson

from generation.llm.transport import Transport
from generation.llm.transport.body import body_of
from generation.loadtest.streams import CONTENT_TYPE, NO_STREAMS, TORN, Deltas, Reading
from generation.telemetry.snapshot import PoolPage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from generation.loadtest.streams import Tempo
    from generation.loadtest.target import Service
    from generation.records import UserKey
    from generation.telemetry.snapshot import Snapshot

OK = 200
SAMPLE_EVERY_S = 0.5
CONNECT_LIMIT_S = 30.0
POOL_LIMIT_S = 10.0
# Starting all callers at once would overflow the service's listen queue, and measure that.
CALLERS_PER_SLICE = 100
SLICE_S = 0.02
NO_ANSWER = (httpx.TransportError, httpx.InvalidURL, TimeoutError)
PROBES = 10  # while the LLM fails them: a simulated provider may be set to fail often


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. Either `requests` or `duration` ends the test."""

    service: Service
    users: Sequence[UserKey]
    body: bytes
    concurrency: int
    requests: int | None  # this many in all
    duration: float | None  # seconds in which requests may begin
    timeout: float  # seconds for one answer
    authorities: str | None = None  # that a server may be trusted by, beside the system's, as PEM
    is_streamed: bool = False  # the body asks for a stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. Times are seconds since the test began."""

    at: float  # when it ended
    seconds: float
    fault: str  # empty for a 200, and a stream that was whole
    first: float | None = None  # seconds to a stream's first content


@dataclass(frozen=True, slots=True)
class Sample:
    """One look while the test runs."""

    at: float
    in_flight: int
    pool: Snapshot | None  # summed over all processes; None where the page could not be read
    tempo: Tempo = NO_STREAMS  # of the streams since the last look


@dataclass(slots=True)
class Result:
    began_with: PoolPage | None = None
    ended_with: PoolPage | None = None
    no_pool_because: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    peak_in_flight: int = 0
    tempo: Tempo = NO_STREAMS

    @property
    def faults(self) -> Counter[str]:
        return Counter(outcome.fault for outcome in self.outcomes if outcome.fault)


class Refused(Exception):
    """The first request did not get a usable answer."""


class LLMFails(Refused):
    """The service works, and its LLM failed each of the first requests."""


class LoadTest:
    """One run against one service. `open()` it, `probe()` it, then `run()` it."""

    def __init__(self, plan: Plan, transport: Transport) -> None:
        self.result = Result()
        self.in_flight = 0
        self._plan = plan
        self._transport = transport
        api = f"{plan.service.url}/api/v1"
        self._pool_url = f"{api}/pool"
        self._generate_urls = cycle([_generate_url(plan, user) for user in plan.users])
        self._headers = httpx.Headers(
            [
                ("content-type", "application/json"),
                ("user-agent", "staccato-loadtest"),
                *plan.service.headers,
            ]
        )
        self._numbers = count()
        self._began = 0.0
        self._deltas = Deltas()

    @classmethod
    @asynccontextmanager
    async def open(cls, plan: Plan) -> AsyncIterator[LoadTest]:
        async with Transport(
            connect_timeout=CONNECT_LIMIT_S, authorities=plan.authorities
        ) as transport:
            yield cls(plan, transport)

    async def probe(self) -> dict[str, Any]:
        """Send one request before the others, again where the LLM fails it.

        Returns its answer, that of a stream from its last event. Raises `Refused`, or `LLMFails`
        after `PROBES` such failures.
        """
        for attempts_left in reversed(range(PROBES)):
            try:
                return await self._probe_once()
            except LLMFails:
                if not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _probe_once(self) -> dict[str, Any]:
        url = _generate_url(self._plan, self._plan.users[0])
        try:
            async with asyncio.timeout(self._plan.timeout):
                reading = Reading(Deltas(), 0.0)
                status, body = await self._send("POST", url, self._plan.body, reading)
        except NO_ANSWER as error:
            raise Refused(f"{url} gives no answer: {error or type(error).__name__}") from None
        answer = _read_object(body)
        if status != OK or reading.end == "error":
            detail = answer.get("detail") or body[:300].decode(errors="replace")
            is_llms = _kind(answer).startswith(("llm-", "stream-"))
            kind = LLMFails if is_llms else Refused
            raise kind(f"{url} answers {answer.get('status', status)}: {detail}")
        if self._plan.is_streamed and not reading.end:
            raise Refused(f"{url} answers 200, but not with a whole stream")
        if "result" not in answer:
            raise Refused(f"{url} answers 200, but not as Staccato does")
        return answer

    async def run(self, show: Callable[[Sample], None]) -> Result:
        """Run the test. Calls `show` with each sample."""
        result = self.result
        result.began_with = await self._ask_pool()
        self._began = time.perf_counter()
        sampling = asyncio.create_task(self._sample(show))
        try:
            async with asyncio.TaskGroup() as callers:
                for number in range(self._plan.concurrency):
                    if number and number % CALLERS_PER_SLICE == 0:
                        await asyncio.sleep(SLICE_S)
                    callers.create_task(self._call_repeatedly())
        finally:
            result.seconds = self._now()
            result.tempo = self._deltas.total(result.seconds)
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        result.ended_with = await self._ask_pool()
        return result

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _is_over(self) -> bool:
        plan = self._plan
        if plan.requests is not None and next(self._numbers) >= plan.requests:
            return True
        return plan.duration is not None and self._now() >= plan.duration

    async def _call_repeatedly(self) -> None:
        while not self._is_over():
            self.in_flight += 1
            self.result.peak_in_flight = max(self.result.peak_in_flight, self.in_flight)
            started = self._now()
            reading = Reading(self._deltas, started)
            try:
                fault = await self._call(reading)
            finally:
                self.in_flight -= 1
            ended = self._now()
            self.result.outcomes.append(Outcome(ended, ended - started, fault, reading.first))
            if fault:
                await asyncio.sleep(SLICE_S)  # don't hammer a service that refuses at once

    async def _call(self, reading: Reading) -> str:
        """Returns the kind of failure, '' for an answer."""
        plan = self._plan
        try:
            async with asyncio.timeout(plan.timeout):
                status, body = await self._send(
                    "POST", next(self._generate_urls), plan.body, reading
                )
        except TimeoutError:
            return f"no {'end' if reading.first else 'answer'} within {plan.timeout:g} s"
        except NO_ANSWER as error:
            return TORN if reading.first else f"connection: {type(error).__name__}"
        if status != OK:
            return f"{status} {_kind(_read_object(body))}".strip()
        if reading.end == "error":
            return _kind(_read_object(body)) or "error"
        return "" if reading.end or not plan.is_streamed else TORN

    async def _send(
        self, method: str, url: str, content: bytes | None, reading: Reading | None = None
    ) -> tuple[int, bytes]:
        """Returns status and body; raises one of `NO_ANSWER`.

        A stream goes into `reading`, and the body is then what its last event says.
        """
        request = httpx.Request(
            method, url, headers=self._headers, stream=httpx.ByteStream(content or b"")
        )
        response = await self._transport.handle_async_request(request)
        stream = body_of(response)
        body = bytearray()
        try:
            if reading is not None and response.headers.get("content-type", "").startswith(
                CONTENT_TYPE
            ):
                async for chunk in stream:
                    reading.feed(chunk, self._now())
                return response.status_code, reading.data
            async for chunk in stream:
                body += chunk
        finally:
            await stream.aclose()
        return response.status_code, bytes(body)

    async def _sample(self, show: Callable[[Sample], None]) -> None:
        before = 0.0
        for look in _every(SAMPLE_EVERY_S):
            await asyncio.sleep(max(0.0, look - self._now()))
            at, in_flight = self._now(), self.in_flight
            tempo, before = self._deltas.recent(at - before), at
            page = None if self.result.no_pool_because else await self._ask_pool()
            sample = Sample(at, in_flight, page and page.total, tempo)
            self.result.samples.append(sample)
            show(sample)

    async def _ask_pool(self) -> PoolPage | None:
        try:
            async with asyncio.timeout(POOL_LIMIT_S):
                status, body = await self._send("GET", self._pool_url, None)
        except NO_ANSWER:
            return None  # the next look may succeed
        with suppress(ValueError):
            if status == OK:
                return PoolPage.parse(body)
        self.result.no_pool_because = f"{self._pool_url} answers {status}"  # as it will next time
        return None


def _every(seconds: float) -> Iterator[float]:
    return (number * seconds for number in count())


def _kind(problem: dict[str, Any]) -> str:
    """Returns a problem document's slug; '' for anything else."""
    return str(problem.get("type", "")).rpartition(":")[2]


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _generate_url(plan: Plan, user: UserKey) -> str:
    return f"{plan.service.url}/api/v1/generate/{quote(str(user), safe='')}"
