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
    from generation.records import Generation, GenerationRequest, Grant

logger = throttled_logger(__name__)

NEARLY_FULL = 0.9  # beyond it, a key is admitted only below its share


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
        refuse_early: Callable[[GenerationRequest], None],
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
        self._shares = Shares(limit)
        self._entered = 0  # places whose generation has not begun
        self._generate = generate
        self._check_journal = check_journal
        self._refuse_early = refuse_early

    def enter(self) -> Place:
        """Take a place. Raises `Draining`, `JournalUnavailable` or `TooManyInFlight`."""
        self._require_accepting()
        if len(self.calls) + self._entered >= self.limit:
            logger.warning("%d requests are in flight: more are refused", self.limit)
            raise TooManyInFlight(f"{self.limit} requests are in flight", retry_after=1)
        self._entered += 1
        return Place(self)

    def require_share(self, place: Place, grant: Grant) -> None:
        """Count a place for its API key. Raises `TooManyInFlight` where the process is nearly full
        and the key has its share of it."""
        nearly_full = len(self.calls) + self._entered > self.limit * NEARLY_FULL
        if nearly_full and not self._shares.allows(grant):
            logger.warning("the process is nearly full: keys with their share of it are refused")
            raise TooManyInFlight("this API key has its share of what runs at once", retry_after=1)
        self._shares.add(grant)
        place.share = grant

    def _require_accepting(self) -> None:
        if self.draining:
            raise Draining("the service is shutting down", retry_after=1)
        self._check_journal()

    def leave(self, share: Grant | None) -> None:
        """Give up a place whose generation has not begun."""
        self._entered -= 1
        if share is not None:
            self._shares.remove(share)

    def start(
        self,
        request: GenerationRequest,
        own: OwnPhase | None = None,
        share: Grant | None = None,
    ) -> GenerationCall:
        """Begin the generation of a place. Raises `Draining` or `JournalUnavailable`, since reading
        the body may have taken long, and `TooManyInFlight` where the requests are too large
        together: each takes about six times its size, and its row must fit into the journal.
        Raises `LimitReached` where a limit of the caller's was reached a moment ago."""
        self._require_accepting()
        self._refuse_early(request)
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
        call.task.add_done_callback(lambda _task: self._finish(call, share))
        return call

    def find_stream(self, key: KeyRef) -> GenerationCall | None:
        """Returns the stream that runs under an Idempotency-Key in this process, unless it was
        abandoned: it ends with an error that only the client that left has caused."""
        call = self._streams.get(key)
        return None if call is None or call.is_abandoned else call

    def _count_abandoned(self) -> None:
        self.abandoned += 1

    def _finish(self, call: GenerationCall, share: Grant | None) -> None:
        del self.calls[call.id]
        if call.meter is not None:
            call.meter.release()
        if share is not None:
            self._shares.remove(share)
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


class Shares:
    """How many places each API key has. A key in use has a share by its weight."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[int | None, tuple[int, int]] = {}  # how many, and the key's weight
        self._weights = 0  # of the keys in use

    def allows(self, grant: Grant) -> bool:
        """Whether one more place is within the key's share."""
        places, weight = self._places.get(grant.key_id, (0, 0))
        weights = self._weights if places else self._weights + grant.weight
        return places * weights < (weight or grant.weight) * self._limit

    def add(self, grant: Grant) -> None:
        places, weight = self._places.get(grant.key_id, (0, grant.weight))
        if not places:
            self._weights += weight
        self._places[grant.key_id] = (places + 1, weight)

    def remove(self, grant: Grant) -> None:
        places, weight = self._places[grant.key_id]
        if places > 1:
            self._places[grant.key_id] = (places - 1, weight)
        else:
            del self._places[grant.key_id]
            self._weights -= weight


class Place:
    """One request's share of the room. Leaving the block gives it up, unless its generation has
    begun: then that keeps it to its end."""

    __slots__ = ("_admission", "_is_taken", "share")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._is_taken = True
        self.share: Grant | None = None  # of the API key that it counts for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.leave()

    def leave(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._admission.leave(self.share)

    def start(self, request: GenerationRequest, own: OwnPhase | None = None) -> GenerationCall:
        """Turn the place into the generation. Raises `Draining`, `JournalUnavailable` or
        `TooManyInFlight`."""
        call = self._admission.start(request, own, self.share)
        self._is_taken = False
        return call
