"""Admission: is there room for one more generation? Asked before its body is read and before
money is spent."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from generation.errors import Draining, StaccatoError, TooManyInFlight, release_frames
from generation.pipeline.call import GenerationCall
from generation.records import KeyRef
from generation.telemetry.durations import Durations
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any
    from uuid import UUID

    from generation.pipeline.own_phase import OwnPhase
    from generation.records import Generation, GenerationRequest

logger = throttled_logger(__name__)


class Admission:
    """Decides about room, and owns the generations that run.

    A generation is a task of the process, not of the connection that asked for it: a client may
    leave at any moment, and what has been paid for by then must still be stored.
    """

    def __init__(
        self,
        limit: int,
        limit_bytes: int,
        generate: Callable[[GenerationCall], Coroutine[Any, Any, Generation]],
        check_journal: Callable[[], None],
    ) -> None:
        self.limit = limit
        self.draining = False
        self.calls: dict[UUID, GenerationCall] = {}  # by the ids of their rows
        self._streams: dict[KeyRef, GenerationCall] = {}  # by their Idempotency-Key
        self.peak = 0  # most generations at once
        self.abandoned = 0  # by their clients, or by a shutdown that could not wait
        self.answered = Durations()  # from arrival to answer
        self._limit_bytes = limit_bytes
        self._bytes = 0  # of the requests that are generated
        self._entered = 0  # places whose generation has not begun
        self._generate = generate
        self._check_journal = check_journal

    def enter(self) -> Place:
        """Take a place. Raises `Draining`, `JournalUnavailable` or `TooManyInFlight`."""
        self._require_accepting()
        if len(self.calls) + self._entered >= self.limit:
            logger.warning("%d requests are in flight: more are refused", self.limit)
            raise TooManyInFlight(f"{self.limit} requests are in flight", retry_after=1)
        self._entered += 1
        return Place(self)

    def _require_accepting(self) -> None:
        if self.draining:
            raise Draining("the service is shutting down", retry_after=1)
        self._check_journal()

    def leave(self) -> None:
        """Give up a place whose generation has not begun."""
        self._entered -= 1

    def start(self, request: GenerationRequest, own: OwnPhase | None = None) -> GenerationCall:
        """Begin the generation of a place. Raises `Draining` or `JournalUnavailable`, since reading
        the body may have taken long, and `TooManyInFlight` where the requests are too large
        together: each takes about six times its size, and its row must fit into the journal."""
        self._require_accepting()
        call = GenerationCall(request, self._count_abandoned, own)
        if self.calls and self._bytes + call.size > self._limit_bytes:
            raise TooManyInFlight(
                f"requests of {self._limit_bytes} bytes are in flight", retry_after=1
            )
        self._bytes += call.size
        call.task = asyncio.get_running_loop().create_task(self._generate(call))
        self._entered -= 1
        self.calls[call.id] = call
        if call.relay and request.idempotency_key:
            self._streams.setdefault(KeyRef(request.user_id, request.idempotency_key), call)
        self.peak = max(self.peak, len(self.calls))
        call.task.add_done_callback(lambda _task: self._finish(call))
        return call

    def find_stream(self, key: KeyRef) -> GenerationCall | None:
        """Returns the stream that runs under an Idempotency-Key in this process, unless it was
        abandoned: it ends with an error that only the client that left has caused."""
        call = self._streams.get(key)
        return None if call is None or call.is_abandoned else call

    def _count_abandoned(self) -> None:
        self.abandoned += 1

    def _finish(self, call: GenerationCall) -> None:
        del self.calls[call.id]
        if call.relay:
            key = KeyRef(call.request.user_id, call.request.idempotency_key)
            if self._streams.get(key) is call:
                del self._streams[key]
            call.relay.close()
        self._bytes -= call.size
        error = None if call.task.cancelled() else call.task.exception()
        if error is None:
            self.answered.add(time.monotonic() - call.request.started)
        elif not isinstance(error, StaccatoError):
            logger.error("a bug made a generation fail", exc_info=error)
        release_frames(error)


class Place:
    """One request's share of the room. Leaving the block gives it up, unless its generation has
    begun: then that keeps it to its end."""

    __slots__ = ("_admission", "_is_taken")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._is_taken = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.leave()

    def leave(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._admission.leave()

    def start(self, request: GenerationRequest, own: OwnPhase | None = None) -> GenerationCall:
        """Turn the place into the generation. Raises `Draining`, `JournalUnavailable` or
        `TooManyInFlight`."""
        call = self._admission.start(request, own)
        self._is_taken = False
        return call
