"""The export of a list as NDJSON: one JSON object a line, the newest generation first."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import orjson
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse

from generation import access, conf
from generation.admin.pagination import TooLong, fetch
from generation.models import GenerationBody, GenerationLog
from generation.privacy.encryption import TEXTS, KeyRing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from generation.admin.theme import ChangeList

# What a client can take within the minute that a page may be sent for.
MOST_ROWS = 20_000
BATCH_ROWS = 200  # read at once; with their texts, a few MB
TYPE = "application/x-ndjson"
SHOWN = (*(name for name in TEXTS if name != "excerpt"), "content")
LONGEST_S = 120.0  # a page is sent for a minute at most


def respond(page: ChangeList, request: HttpRequest) -> HttpResponseBase:
    """Returns all logs of a list, with their texts for those who may read them.

    It is all or, with a sentence that says why, nothing. The access is recorded before.
    """
    taken = _place.take()
    if taken is None:
        return _refusal(503, "Another export is under way. Try again when it is done.", 10)
    response: HttpResponseBase | None = None
    try:
        response = _respond(page, request)
    finally:
        if isinstance(response, Export):
            response.taken = taken
        else:
            _place.leave(taken)
    return response


class Place:
    """One export at a time in a process: each decrypts and encodes thousands of texts beside the
    generations.

    It is free again after `LONGEST_S` at the latest: Django closes no response whose client left
    before it began.
    """

    def __init__(self) -> None:
        self._taken: float | None = None
        self._lock = threading.Lock()

    def take(self) -> float | None:
        """Returns what `leave()` needs; None if another export is under way."""
        now = time.monotonic()
        with self._lock:
            if self._taken is not None and now < self._taken + LONGEST_S:
                return None
            self._taken = now
        return now

    def leave(self, taken: float) -> None:
        with self._lock:
            if self._taken == taken:  # else it was given to another meanwhile
                self._taken = None


_place = Place()


class Export(StreamingHttpResponse):
    taken = 0.0

    def close(self) -> None:
        super().close()
        _place.leave(self.taken)


def _respond(page: ChangeList, request: HttpRequest) -> HttpResponseBase:
    logs: QuerySet[GenerationLog] = page.queryset
    try:
        keys = fetch(logs.values_list("pk", flat=True)[: MOST_ROWS + 1])
    except TooLong as error:
        return _refusal(503, str(error))
    if len(keys) > MOST_ROWS:
        return _refusal(
            400,
            f"More than {MOST_ROWS:,} generations match. Narrow the list, e.g. by arrival, and"
            " export it in parts.",
        )
    with_texts = request.user.has_perm(access.READ_CONTENT)
    try:
        access.record(
            access.Action.EXPORT,
            request=request,
            rows=len(keys),
            selection=request.META.get("QUERY_STRING", ""),
        )
    except access.NotRecorded:
        return access.unavailable()
    return Export(
        _lines(keys, with_texts=with_texts, alias=logs.db),
        content_type=TYPE,
        headers={
            "Content-Disposition": 'attachment; filename="generations.ndjson"',
            "Cache-Control": "no-store",
        },
    )


def _refusal(status: int, why: str, retry_after: int | None = None) -> HttpResponse:
    return HttpResponse(
        f"{why}\n",
        status=status,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(retry_after)} if retry_after else None,
    )


async def _lines(keys: list[UUID], *, with_texts: bool, alias: str) -> AsyncIterator[bytes]:
    for start in range(0, len(keys), BATCH_ROWS):
        yield await sync_to_async(_read)(
            keys[start : start + BATCH_ROWS], with_texts=with_texts, alias=alias
        )


def _read(keys: list[UUID], *, with_texts: bool, alias: str) -> bytes:
    """Holds a connection for its batch only: the client may read slowly."""
    rows = GenerationLog.objects.using(alias).filter(pk__in=keys).order_by("-pk").values()
    texts: dict[UUID, dict[str, Any]] = {}
    try:
        if with_texts:
            ring = KeyRing.of(conf.load())
            for body in GenerationBody.objects.using(alias).filter(pk__in=keys):
                shown = ring.reveal(body)
                texts[body.pk] = {name: getattr(shown, name) for name in SHOWN}
        return b"".join(
            orjson.dumps({**row, **texts.get(row["id"], {})}, default=str) + b"\n" for row in rows
        )
    finally:
        connections[alias].close()
