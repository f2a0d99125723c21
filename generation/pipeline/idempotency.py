"""Idempotency-Key: one LLM call for a request that its caller may repeat.

A key is claimed in PostgreSQL before the LLM is called, and completed by the insertion of its log
row, so this works across processes and hosts. A claim is a lease by the database's clock: where
its owner dies, the next repetition after the lease takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
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

    from generation.database.engine import Database
    from generation.records import Generation, GenerationRequest, KeyRef
    from generation.store.claims import ClaimResult, Claims

RELEASE_WAIT_S = 2.0

KEY_PATTERN = "^[!-~]{1,255}$"
_KEY = re.compile(KEY_PATTERN)


def read(header: str | None) -> str:
    """The key in a request's header; '' if there is none. Raises `IdempotencyKeyInvalid`."""
    if header is None:
        return ""
    if not _KEY.fullmatch(header):
        raise IdempotencyKeyInvalid("an Idempotency-Key has 1 to 255 visible ASCII characters")
    return header


def fingerprint(request: GenerationRequest) -> str:
    """SHA-256 of what is asked for: the same key with anything else is an error."""
    asked = {
        "input": request.input,
        "variables": dict(request.variables),
        "provider": request.provider,
        "model": request.model,
        "max_tokens": request.max_tokens,
    }
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Idempotency:
    """The claims of one process."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        # A repetition while the first request runs in this process needs no statement to be
        # refused, and attempts that come while a claim is under way share its result.
        self._running: dict[KeyRef, Claim] = {}
        self._claiming: dict[KeyRef, tuple[Claim, asyncio.Future[ClaimResult | None]]] = {}

    async def once(
        self,
        request: GenerationRequest,
        generate: Callable[[Claim], Awaitable[Generation]],
    ) -> Generation:
        """Run `generate(claim)` under the request's key, or return the answer of an earlier run.

        Raises `IdempotencyKeyInUse`, `IdempotencyKeyReused`, `DatabaseUnavailable`, or what
        `generate` raises; the key is free again then.
        """
        attempt = Claim(request.user_id, request.idempotency_key, fingerprint(request), uuid4())
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
        if result is None:  # another process claimed it while our statement ran
            raise _refusal(attempt, None)
        if result.won:
            if first is attempt:
                return None
            raise _refusal(attempt, first.fingerprint)
        if result.answer is None or result.fingerprint != attempt.fingerprint:
            raise _refusal(attempt, result.fingerprint)
        return result.answer

    def _begin_claim(
        self, attempt: Claim, ref: KeyRef
    ) -> tuple[Claim, asyncio.Future[ClaimResult | None]]:
        pending = self._claims.claim(attempt)
        self._claiming[ref] = (attempt, pending)
        pending.add_done_callback(lambda _done: self._claiming.pop(ref))
        return attempt, pending

    def _release_unused(self, attempt: Claim, done: asyncio.Future[ClaimResult | None]) -> None:
        """Free a key that was won after its caller had given up."""
        if done.cancelled() or done.exception() is not None:
            return
        result = done.result()
        if result is not None and result.won:
            with contextlib.suppress(StaccatoError):
                self._claims.release(attempt)

    async def _release(self, claim: Claim) -> None:
        """Free the key; where this fails, its lease ends by itself."""
        with contextlib.suppress(StaccatoError, TimeoutError):
            async with asyncio.timeout(RELEASE_WAIT_S):
                await asyncio.shield(self._claims.release(claim))


def _refusal(attempt: Claim, owner: str | None) -> StaccatoError:
    if owner is not None and owner != attempt.fingerprint:
        return IdempotencyKeyReused(
            "this Idempotency-Key was sent with another request; use a new one"
        )
    return IdempotencyKeyInUse(
        "the first request with this Idempotency-Key is still being worked on", retry_after=1
    )
