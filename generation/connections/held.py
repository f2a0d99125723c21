"""Which of Django's connections the running code holds.

A connection belongs to a thread. Under ASGI, a request's synchronous code and its ORM calls run in
a thread of the request's own (`sync_to_async`, thread-sensitive), so the event loop's thread sees
none of them.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.signals import connection_created

from generation.errors import WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True, slots=True)
class Held:
    """A connection that is open for the running code."""

    alias: str
    in_transaction: bool
    age_s: float  # since it was opened, or borrowed from Django's pool


@dataclass(slots=True)
class Ledger:
    """What a block of code, and all that it calls in whichever thread, does with connections."""

    opened: set[BaseDatabaseWrapper]
    used: set[BaseDatabaseWrapper]  # by queries; empty unless queries are timed
    query_s: float = 0.0

    def still_held(self) -> list[BaseDatabaseWrapper]:
        return [each for each in self.opened | self.used if each.connection is not None]


_ledgers: ContextVar[tuple[Ledger, ...]] = ContextVar("staccato_django_ledgers", default=())
_OPENED_AT = "_staccato_opened_at"
_timing = False


def open_ledger() -> tuple[Ledger, Callable[[], None]]:
    """Returns a ledger of all that this context does from here on, and what closes it."""
    ledger = Ledger(set(), set())
    _ledgers.set((*_ledgers.get(), ledger))

    def close() -> None:
        _ledgers.set(tuple(each for each in _ledgers.get() if each is not ledger))

    return ledger, close


def time_queries() -> None:
    """Let the ledgers know, from here on, the queries on connections that are opened later."""
    global _timing  # noqa: PLW0603  # a process has the middleware, or has not
    _timing = True


def held_connections() -> tuple[Held, ...]:
    """Returns the connections that this thread holds. Raises `WrongThread` in async code."""
    require_sync("await aheld_connections()")
    return tuple(map(_describe, of_this_thread(None)))


async def aheld_connections() -> tuple[Held, ...]:
    """Returns the connections that this request's ORM calls hold."""
    return await sync_to_async(held_connections)()


def require_sync(instead: str) -> None:
    """Raises `WrongThread` in an event loop's thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongThread(
        f"async code's connections are in another thread, which this call can't see; {instead}"
    )


def of_this_thread(using: Collection[str] | None) -> list[BaseDatabaseWrapper]:
    return [
        each
        for each in connections.all(initialized_only=True)
        if each.connection is not None and (using is None or each.alias in using)
    ]


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether code has begun a transaction that closing would roll back.

    That of a `TestCase` is none of the code's.
    """
    if connection.in_atomic_block:
        return not is_in_testcase(connection)
    return not connection.autocommit


def is_in_testcase(connection: Any) -> bool:
    """Whether all open transactions are a `TestCase`'s own; Django marks them for `durable`."""
    blocks = connection.atomic_blocks
    return bool(blocks) and all(getattr(block, "_from_testcase", False) for block in blocks)


def _describe(connection: BaseDatabaseWrapper) -> Held:
    opened_at = getattr(connection, _OPENED_AT, monotonic())
    return Held(connection.alias, is_in_transaction(connection), monotonic() - opened_at)


def opened_at(connection: BaseDatabaseWrapper) -> float:
    """Returns `time.monotonic()` when it was opened; 0 if nobody was looking."""
    moment: float = getattr(connection, _OPENED_AT, 0.0)
    return moment


def _note_opened(*, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    """Runs in the thread that opens the connection, in a copy of its caller's context."""
    setattr(connection, _OPENED_AT, monotonic())
    for ledger in _ledgers.get():
        ledger.opened.add(connection)
    if _timing and _time_query not in connection.execute_wrappers:
        connection.execute_wrappers.append(_time_query)


def _time_query(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001  # Django's signature
    started = monotonic()
    try:
        return execute(sql, params, many, context)
    finally:
        for ledger in _ledgers.get():
            ledger.query_s += monotonic() - started
            ledger.used.add(context["connection"])


connection_created.connect(_note_opened, dispatch_uid="staccato.connections")
