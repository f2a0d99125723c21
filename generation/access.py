"""The record of who read, searched, exported or erased texts. It is written before they are."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import Error, connections, router, transaction
from django.http import HttpResponse

from generation.models import GenerationAccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

View = TypeVar("View", bound="Callable[..., Any]")

Action = GenerationAccess.Action

READ_CONTENT = "generation.read_content"
EXPORT = "generation.export"
SELECTION_CHARS = 2000  # more than a filter takes that a person has made
TIME_LIMIT_MS = 5000


class NotRecorded(Exception):  # a state, not a fault
    """The record can't be written now, so nothing may be shown."""


def record(
    action: str,
    *,
    rows: int,
    request: HttpRequest | None = None,
    log_id: UUID | None = None,
    selection: str = "",
) -> None:
    """Returns once the access is committed; without a request, a command's. Raises `NotRecorded`.

    Never call it within a transaction: what is rolled back later would have been read.
    """
    who: dict[str, Any] = {}
    if request is not None:
        who = {"user_id": request.user.pk, "address": _address_of(request)}
    entry = GenerationAccess(
        action=action,
        rows=rows,
        log_id=log_id,
        selection=selection.replace("\0", "")[:SELECTION_CHARS],
        **who,
    )
    alias = router.db_for_write(GenerationAccess)
    try:
        with transaction.atomic(using=alias, durable=True):
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true)", [str(TIME_LIMIT_MS)]
                )
            entry.save(force_insert=True, using=alias)
    except Error as error:
        raise NotRecorded(str(error)) from error


def outside_transactions(view: View) -> View:
    """Let a view record an access, whichever database has ATOMIC_REQUESTS."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def unavailable() -> HttpResponse:
    """The page in place of texts whose reading can't be recorded. Plain, because the database that
    a page of the admin needs may be away."""
    return HttpResponse(
        "The record of who reads prompts and answers can't be written now, so none are shown."
        " Try again in a few seconds. If it lasts, look whether the database takes writes, and"
        " run `manage.py staccato_maintain`: it makes the partitions that the record needs.",
        status=503,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": "5"},
    )


def _address_of(request: HttpRequest) -> str | None:
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:  # a socket's
        return None
