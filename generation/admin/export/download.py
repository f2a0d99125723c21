"""An export to a browser, as a stream: one at a time in a process, and at a share of its time.

An answer that breaks off ends without its last bytes, which a client reports. `?after=` the last id
that came goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, connections
from django.http import HttpResponse, StreamingHttpResponse

from generation import access
from generation.admin.export.formats import FORMATS
from generation.admin.export.rows import Rows
from generation.admin.export.selection import BadSelection, Walk, now_id, select
from generation.admin.pagination import TooLong
from generation.asgi.event_stream import ABORT_S
from generation.asgi.stock_places import IN_PARTS
from generation.asgi.uvicorn_limits import ABORT
from generation.partitions.parquet import FormatMissing
from generation.runtime import process as runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from generation.admin.export.formats import Csv, Jsonl, Parquet

logger = logging.getLogger(__name__)

LONGEST_S = 1800.0
# A client that takes nothing for so long has lost its place. Django closes no response whose client
# left before it began.
IDLE_S = 120.0
# Of a second, how much of it an export may work beside the generations of its process.
SHARE = 1 / 3
LONGEST_REST_S = 1.0
AFTER, FORMAT = "after", "format"
_PASSING = (InterfaceError, OperationalError)  # the database is away


def respond(request: HttpRequest) -> HttpResponseBase:
    """Returns all that the address selects, with texts for those who may read them, or a sentence
    that says why there is nothing. Each portion is in the record of accesses before it is read."""
    taken = _place.take()
    if taken is None:
        return _refusal(503, "Another export is under way. Try again when it is done.", 10)
    response: HttpResponseBase | None = None
    try:
        response = _respond(request, taken)
    finally:
        if not isinstance(response, Export):
            _place.leave(taken)
    return response


class Place:
    """One export at a time in a process."""

    def __init__(self) -> None:
        self._taken: object | None = None
        self._seen = 0.0
        self._lock = threading.Lock()

    def take(self) -> object | None:
        """Returns what the other methods need; None if another export is under way."""
        with self._lock:
            if self._taken is not None and time.monotonic() < self._seen + IDLE_S:
                return None
            self._taken, self._seen = object(), time.monotonic()
            return self._taken

    def keep(self, taken: object) -> bool:
        """Returns whether the place is still this export's."""
        with self._lock:
            if self._taken is not taken:
                return False
            self._seen = time.monotonic()
            return True

    def leave(self, taken: object) -> None:
        with self._lock:
            if self._taken is taken:
                self._taken = None


_place = Place()


class BrokenOff(Exception):
    """The server must not end the answer as if it were whole. The text says why it ends."""


class Export(StreamingHttpResponse):
    def __init__(
        self, parts: AsyncIterator[bytes] | Iterator[bytes], taken: object, **options: Any
    ) -> None:
        super().__init__(parts, **options)
        self._place_taken = taken

    def close(self) -> None:
        super().close()
        _place.leave(self._place_taken)


def _respond(request: HttpRequest, taken: object) -> HttpResponseBase:
    try:
        asked = _take(request)
        walk = Walk(select(asked.selection), after=asked.after, until=now_id())
        rows = Rows(walk.alias, with_texts=request.user.has_perm(access.READ_CONTENT))
        content = _content(asked, rows)
        first = walk.portion()
        if first:
            _record(request, first, asked.selection)
    except BadSelection as error:
        return _refusal(400, str(error))
    except access.NotRecorded:
        return access.unavailable()
    except TooLong as error:
        return _refusal(503, str(error), 10)
    except _PASSING:
        return _refusal(503, "The database can't be reached now.", 5)
    parts = _Parts(request, asked.selection, walk, rows, content).made(first, taken)
    if isinstance(request, ASGIRequest):
        scope: Any = request.scope
        scope[IN_PARTS] = True
        return _export(_at_leisure(parts, scope.get(ABORT), taken), taken, asked)
    return _export(parts, taken, asked)


def _export(parts: AsyncIterator[bytes] | Iterator[bytes], taken: object, asked: _Asked) -> Export:
    return Export(
        parts,
        taken,
        content_type=asked.kind.content_type,
        headers={
            "Content-Disposition": f'attachment; filename="generations.{asked.name}"',
            "Cache-Control": "no-store",
        },
    )


def _content(asked: _Asked, rows: Rows) -> Csv | Jsonl | Parquet:
    """Raises `BadSelection`."""
    try:
        return asked.kind(rows.columns)
    except FormatMissing:
        raise BadSelection("This server has no Parquet: it lacks the extra [archive].") from None


class _Asked(NamedTuple):
    after: UUID | None
    name: str  # of the format
    kind: type[Csv | Jsonl | Parquet]
    selection: str


def _take(request: HttpRequest) -> _Asked:
    """Separates the filter from the rest of the address. Raises `BadSelection`."""
    given = request.GET.copy()
    after, name = given.pop(AFTER, [""])[-1].strip(), given.pop(FORMAT, ["jsonl"])[-1]
    if name not in FORMATS:
        raise BadSelection(f"There is no format {name}; these are: {', '.join(FORMATS)}.")
    try:
        position = UUID(after) if after else None
    except ValueError:
        raise BadSelection("“after” is not the id of a generation.") from None
    return _Asked(position, name, FORMATS[name], given.urlencode())


def _refusal(status: int, why: str, retry_after: int | None = None) -> HttpResponse:
    return HttpResponse(
        f"{why}\n",
        status=status,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(retry_after)} if retry_after else None,
    )


def _record(request: HttpRequest, keys: list[UUID], selection: str) -> None:
    access.record(access.Action.EXPORT, request=request, rows=len(keys), selection=selection)


@dataclass(frozen=True, slots=True)
class _Parts:
    request: HttpRequest
    selection: str
    walk: Walk
    rows: Rows
    content: Csv | Jsonl | Parquet

    def made(self, portion: list[UUID] | None, taken: object) -> Iterator[bytes]:
        """Yields the parts of the file; between two of them it holds no connection. Raises
        `BrokenOff`."""
        deadline = time.monotonic() + LONGEST_S
        last: UUID | None = None
        try:
            yield self.content.begin()
            while portion is not None:
                for batch in self.rows.batches(portion):
                    _require(taken, deadline)
                    part = self.content.encode(self.rows.read(batch))
                    connections[self.walk.alias].close()
                    yield part
                    last = batch[-1]
                portion = self.walk.portion()
                if portion:
                    _record(self.request, portion, self.selection)
                connections[self.walk.alias].close()
                yield b""
            yield self.content.end()
        except (*_PASSING, TooLong, access.NotRecorded, BrokenOff) as error:
            connections[self.walk.alias].close()
            logger.warning("an export broke off after %s: %s", last, " ".join(str(error).split()))
            raise BrokenOff("the export is not complete; go on with ?after=") from None
        finally:
            _place.leave(taken)


def _require(taken: object, deadline: float) -> None:
    """Raises `BrokenOff`."""
    if not _place.keep(taken):
        raise BrokenOff("its client took nothing for too long")
    if time.monotonic() > deadline:
        raise BrokenOff(f"it took more than {LONGEST_S:g} s; `staccato_export` has no limit")
    now = runtime.opened()
    if now is not None and now.admission.draining:
        raise BrokenOff("the service is shutting down")


async def _at_leisure(
    parts: Iterator[bytes], abort: Callable[[], None] | None, taken: object
) -> AsyncIterator[bytes]:
    """Neither a thread nor a connection is held while the client reads, or while this rests."""
    try:
        while True:
            began = time.monotonic()
            part = await sync_to_async(_next)(parts)
            if part is None:
                return
            if part:
                yield part
            await asyncio.sleep(min(LONGEST_REST_S, (time.monotonic() - began) * (1 / SHARE - 1)))
    except BrokenOff:
        if abort is not None:
            abort()
            await asyncio.sleep(ABORT_S)  # until the server notices, which ends this
        raise
    finally:
        _place.leave(taken)


def _next(parts: Iterator[bytes]) -> bytes | None:
    """Returns None at the end: a StopIteration can't leave a thread."""
    return next(parts, None)
