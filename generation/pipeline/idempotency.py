"""Idempotency-Key: one LLM call for a request that its caller may repeat.

A key is claimed in PostgreSQL before the LLM is called, and completed by the insertion of its log
row, so this works across processes and hosts. A claim is a lease by the database's clock: where
its owner dies, the next repetition after the lease takes over, once no journal of this host has the
owner's answer. An answer whose row PostgreSQL refuses completes no key, so its dead letter answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson

from generation.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    StaccatoError,
)
from generation.records import Claim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any
    from uuid import UUID

    from generation.database.engine import Database
    from generation.journal.durable_log import DurableLog
    from generation.privacy.hashing import KeyedHash
    from generation.records import Generation, GenerationRequest, KeyRef
    from generation.store.claims import ClaimResult, Claims

RELEASE_WAIT_S = 2.0
RELEASE_AGAIN_S = 0.5  # between tries to free keys that could not be freed
FREED = 1000
UNRELEASED = 100_000  # keys that are tried again; the leases of more end by themselves
MAX_RETRY_S = 60.0  # of a Retry-After: most requests end long before their lease

KEY_PATTERN = "^[!-~]{1,255}$"
_KEY = re.compile(KEY_PATTERN)
_OF_STREAMS = {"stream", "stream_options"}


def read(header: str | None) -> str:
    """The key in a request's header; '' if there is none. Raises `IdempotencyKeyInvalid`."""
    if header is None:
        return ""
    if not _KEY.fullmatch(header):
        raise IdempotencyKeyInvalid("an Idempotency-Key has 1 to 255 visible ASCII characters")
    return header


def fingerprint(request: GenerationRequest, keyed_hash: KeyedHash) -> str:
    """HMAC-SHA256 of what is asked for: the same key with anything else is an error."""
    asked: dict[str, Any] = {
        "input": request.input,
        "variables": dict(request.variables),
        "provider": request.provider,
        "model": request.model,
        "max_tokens": request.max_tokens,
    }
    # Whether it is streamed makes no other answer.
    if request.verbatim:
        body = request.verbatim.body
        asked["body"] = {name: body[name] for name in body if name not in _OF_STREAMS}
    elif request.messages:
        asked |= {
            "messages": request.messages,
            "system": request.system,
            "tools": request.tools,
            "options": request.options,
        }
    return keyed_hash(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS))


class Idempotency:
    """The claims of one process."""

    def __init__(
        self,
        database: Database,
        claims: Claims,
        log: DurableLog,
        keyed_hash: KeyedHash,
    ) -> None:
        self._database = database
        self._claims = claims
        self._log = log
        self._hash = keyed_hash
        # A repetition while the first request runs in this process needs no statement to be
        # refused, and attempts that come while a claim is under way share its result.
        self._running: dict[KeyRef, Claim] = {}
        self._claiming: dict[KeyRef, tuple[Claim, asyncio.Future[ClaimResult | None]]] = {}
        self._lasting: set[UUID] = set()  # tokens of those that ran at the last `renew()`
        # Claims that must not keep their keys, with the moment when their leases have ended.
        self._unreleased: dict[UUID, tuple[Claim, float]] = {}
        self._freed: deque[UUID] = deque(maxlen=FREED)  # the latest of these that are free now
        self._releasing: asyncio.Task[None] | None = None

    async def once(
        self,
        request: GenerationRequest,
        generate: Callable[[Claim], Awaitable[Generation]],
    ) -> Generation:
        """Run `generate(claim)` under the request's key, or return the answer of an earlier run.

        Raises `IdempotencyKeyInUse`, `IdempotencyKeyReused`, `DatabaseUnavailable`, or what
        `generate` raises; the key is free again then.
        """
        asked = fingerprint(request, self._hash)
        attempt = Claim(request.user_id, request.idempotency_key, asked, uuid4())
        ref = attempt.ref
        if owner := self._running.get(ref):
            raise _refusal(attempt, owner.fingerprint)
        earlier = await self._acquire(request, attempt, ref)
        if earlier is not None:
            return earlier
        self._running[ref] = attempt
        try:
            return await generate(attempt)
        except BaseException:
            await self._release(attempt)
            raise
        finally:
            del self._running[ref]

    def require_same(self, request: GenerationRequest, running: GenerationRequest) -> None:
        """Raises `IdempotencyKeyReused` if two requests under one key ask for different things."""
        if fingerprint(request, self._hash) != fingerprint(running, self._hash):
            raise _reused()

    async def renew(self) -> None:
        """Keep the keys of requests that ran at the last call as well: a stream may outlast its
        lease. Raises `DatabaseUnavailable`."""
        running = {claim.token: claim for claim in self._running.values()}
        lasting = [claim for token, claim in running.items() if token in self._lasting]
        self._lasting = set(running)
        await self._claims.renew(lasting)

    async def _acquire(
        self, request: GenerationRequest, attempt: Claim, ref: KeyRef
    ) -> Generation | None:
        """Returns None where the key is ours now, else the earlier answer. Raises the refusal."""
        first, pending = self._claiming.get(ref) or self._begin_claim(attempt, ref)
        try:
            # Shared, so the first to give up must not cancel it for the others.
            result = await self._database.within(asyncio.shield(pending), since=request.started)
        except BaseException:
            if first is attempt:
                pending.add_done_callback(lambda done: self._release_unused(attempt, done))
            raise
        if result is not None and not result.won and result.answer is None and result.lease_s <= 0:
            first, result = attempt, await self._take_over(request, attempt, result)
        if result is None:  # another process claimed it while our statement ran
            raise _refusal(attempt, None)
        if result.won:
            if first is attempt:
                return None
            raise _refusal(attempt, first.fingerprint)
        if result.answer is None or result.fingerprint != attempt.fingerprint:
            # The background is about to free the key, or has while our statement ran.
            is_ours = result.owner in self._unreleased or result.owner in self._freed
            raise _refusal(attempt, result.fingerprint, 0.0 if is_ours else result.lease_s)
        return result.answer

    async def _take_over(
        self, request: GenerationRequest, attempt: Claim, owned: ClaimResult
    ) -> ClaimResult | None:
        """Claim a key whose owner's lease has ended, unless this host has the owner's answer.

        The owner may have answered while the database was away, and died or not. Or PostgreSQL
        has refused the answer's row.
        """
        ref = attempt.ref
        settling = asyncio.get_running_loop().create_task(self._log.settle(ref))
        settling.add_done_callback(_retrieve)
        # Not cancelled with the caller: it stores rows.
        if await self._database.within(asyncio.shield(settling), since=request.started):
            raise _refusal(attempt, None)
        refused = await self._log.find_refused(owned.owner) if owned.owner else None
        if refused is not None:
            return replace(owned, answer=self._claims.answer_of(refused))
        if owner := self._running.get(ref):
            raise _refusal(attempt, owner.fingerprint)
        pending = self._claims.take_over(attempt)
        try:
            return await self._database.within(asyncio.shield(pending), since=request.started)
        except BaseException:
            pending.add_done_callback(lambda done: self._release_unused(attempt, done))
            raise

    def _begin_claim(
        self, attempt: Claim, ref: KeyRef
    ) -> tuple[Claim, asyncio.Future[ClaimResult | None]]:
        pending = self._claims.claim(attempt)
        self._claiming[ref] = (attempt, pending)
        pending.add_done_callback(lambda _done: self._claiming.pop(ref))
        return attempt, pending

    def _release_unused(self, attempt: Claim, done: asyncio.Future[ClaimResult | None]) -> None:
        """Free a key that was won after its caller had given up, or that may have been won: the
        statement was committed, and its reply was lost."""
        if done.cancelled():
            return
        result = None if done.exception() else done.result()
        if result is None or result.won:
            self._release_later(attempt)

    async def _release(self, claim: Claim) -> None:
        """Free the key, or see to it that it is freed later."""
        try:
            async with asyncio.timeout(RELEASE_WAIT_S):
                await asyncio.shield(self._claims.release(claim))
        except (StaccatoError, TimeoutError):
            self._release_later(claim)

    def _release_later(self, claim: Claim) -> None:
        """Free the key in the background, again and again until its lease has ended."""
        if len(self._unreleased) >= UNRELEASED:
            return
        loop = asyncio.get_running_loop()
        self._unreleased[claim.token] = (claim, loop.time() + self._claims.lease_s)
        if self._releasing is None or self._releasing.done():
            self._releasing = loop.create_task(self._release_all(), context=Context())

    async def _release_all(self) -> None:
        while self._unreleased:
            now = asyncio.get_running_loop().time()
            for token, (_claim, until) in list(self._unreleased.items()):
                if until < now:
                    del self._unreleased[token]
            await self._release_once()
            if self._unreleased:
                await asyncio.sleep(RELEASE_AGAIN_S)

    async def _release_once(self) -> None:
        claims = [claim for claim, _until in self._unreleased.values()]
        with contextlib.suppress(StaccatoError):  # the queue is full
            futures = {claim.token: self._claims.release(claim) for claim in claims}
            await asyncio.gather(*futures.values(), return_exceptions=True)
            for token, future in futures.items():
                if future.exception() is None:
                    self._unreleased.pop(token, None)
                    self._freed.append(token)

    async def close(self) -> None:
        """Free the keys one last time."""
        if self._releasing is not None:
            self._releasing.cancel()
            await asyncio.wait([self._releasing])
            await self._release_once()


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Its callers may have left; nobody else would look at its error."""
    if not done.cancelled():
        done.exception()


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("this Idempotency-Key was sent with another request; use a new one")


def _refusal(attempt: Claim, owner: str | None, lease_s: float = 0.0) -> StaccatoError:
    if owner is not None and owner != attempt.fingerprint:
        return _reused()
    return IdempotencyKeyInUse(
        "the first request with this Idempotency-Key is still being worked on",
        retry_after=min(max(lease_s, 1.0), MAX_RETRY_S),
    )
