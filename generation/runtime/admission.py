"""Admission: is there room for one more generation? Asked before its body is read and before
money is spent."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from generation.errors import Draining, StaccatoError, TooManyInFlight, release_frames
from generation.pipeline.call import GenerationCall
from generation.records import KeyRef
from generation.runtime.refusal_pace import RefusalPace
from generation.telemetry.durations import Durations
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any
    from uuid import UUID

    from generation.pipeline.own_phase import OwnPhase
    from generation.records import Generation, GenerationRequest, Grant

logger = throttled_logger(__name__)

UNKNOWN = 100  # requests beyond the limit whose API key is being read
WANTING_S = 10.0  # after which a key that was refused does not seem to want more
WANTING_KEYS = 100  # of which that is known
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
        self.refusal_pace = RefusalPace()
        self._entered = 0  # places whose generation has not begun
        self._generate = generate
        self._check_journal = check_journal
        self._refuse_early = refuse_early

    def enter(self, *, beyond: int = 0) -> Place:
        """Take a place, of so many beyond the limit. Raises `Draining`, `JournalUnavailable` or
        `TooManyInFlight`."""
        self._require_accepting()
        if len(self.calls) + self._entered >= self.limit + beyond:
            raise self._full()
        self._entered += 1
        return Place(self)

    def enter_unknown(self) -> Place:
        """The same for a request whose API key is yet to be read: `require_share()` decides. A full
        process reads keys, too, since only so it learns that others than those which fill it want
        to be served."""
        return self.enter(beyond=UNKNOWN)

    def _full(self) -> TooManyInFlight:
        logger.warning("%d requests are in flight: more are refused", self.limit)
        return TooManyInFlight(f"{self.limit} requests are in flight", retry_after=1)

    def require_share(self, place: Place, grant: Grant) -> None:
        """Count a place for its API key. Raises `TooManyInFlight` where the process is full, or
        nearly full and the key has its share of it."""
        taken = len(self.calls) + self._entered
        if taken > self.limit * NEARLY_FULL:
            self._shares.note(grant, time.monotonic())
            if taken > self.limit:
                raise self._full()
            if not self._shares.allows(grant):
                logger.warning("the process is nearly full: keys with their share are refused")
                raise TooManyInFlight(
                    "this API key has its share of what runs at once", retry_after=1
                )
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
    """How many places each API key has. A key in use has a share by its weight; so has one that
    was refused, or it would find the room taken each time it asks again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[int | None, tuple[int, int]] = {}  # how many, and the key's weight
        self._weights = 0  # of the keys in use
        self._wanting: dict[int | None, tuple[float, int]] = {}  # since when, and the weight
        self._forget_at = 0.0

    def note(self, grant: Grant, now: float) -> None:
        """A key asks while there is little room."""
        if now >= self._forget_at:
            self._forget_at = now + 1
            self._wanting = {
                key: known for key, known in self._wanting.items() if known[0] > now - WANTING_S
            }
        if len(self._wanting) < WANTING_KEYS or grant.key_id in self._wanting:
            self._wanting[grant.key_id] = (now, grant.weight)

    def allows(self, grant: Grant) -> bool:
        """Whether one more place is within the key's share."""
        places, weight = self._places.get(grant.key_id, (0, 0))
        waiting = sum(known[1] for key, known in self._wanting.items() if key not in self._places)
        weights = self._weights + waiting
        if not places and grant.key_id not in self._wanting:
            weights += grant.weight
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
