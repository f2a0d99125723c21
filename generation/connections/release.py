"""Giving a request's connections back before something slow, and proof that none came back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from asgiref.sync import sync_to_async
from django.conf import settings

from generation.connections.held import (
    is_in_testcase,
    is_in_transaction,
    of_this_thread,
    open_ledger,
    require_sync,
)
from generation.errors import ConnectionHeld, HeldInTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from generation.connections.held import Ledger

logger = logging.getLogger(__name__)


def released(*, using: Collection[str] | None = None, check: bool = True) -> Released:
    """Give this request's Django connections back before a slow call.

    `with released():` in synchronous code, `async with released():` in async code. Django opens a
    connection again at the next query after the block. `using` names the databases; None: all.

    Entering raises `HeldInTransaction` inside `atomic()`, under ATOMIC_REQUESTS, and where
    autocommit is off, and `WrongThread` if async code uses `with`. If the block has opened a
    connection and holds it at its end, that connection is closed and, unless `check` is off,
    `ConnectionHeld` is raised with DEBUG on, else the violation is counted and logged.
    """
    return Released(using, check=check)


class Released:
    """The block of one `released()`. Enter it once."""

    def __init__(
        self, using: Collection[str] | None = None, *, check: bool = True, must: bool = True
    ) -> None:
        """Without `must`, a transaction raises with DEBUG on only; see `give_back_if_possible`."""
        self._using = frozenset((using,)) if isinstance(using, str) else using
        self._check = check
        self._give_back = give_back if must else give_back_if_possible
        self._ledger: Ledger
        self._close_ledger: Callable[[], None]

    def __enter__(self) -> Self:
        require_sync("write `async with released():`")
        self._give_back(self._using)
        self._watch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self._close_ledger()
        opened = self._opened()
        self._give_back_opened()
        self._report(opened, raised=kind is not None)

    async def __aenter__(self) -> Self:
        await sync_to_async(self._give_back)(self._using)
        self._watch()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self._close_ledger()
        opened = self._opened()
        if opened:
            await sync_to_async(self._give_back_opened)()
        self._report(opened, raised=kind is not None)

    def _watch(self) -> None:
        self._ledger, self._close_ledger = open_ledger()

    def _opened(self) -> list[str]:
        """Returns the aliases of the connections that the block has opened and still holds."""
        held = self._ledger.still_held()
        return sorted({it.alias for it in held if self._using is None or it.alias in self._using})

    def _give_back_opened(self) -> None:
        """Those of another thread can't be closed from here."""
        opened = self._ledger.opened
        for connection in of_this_thread(self._using):
            if connection in opened and not connection.in_atomic_block:
                connection.close()

    def _report(self, opened: list[str], *, raised: bool) -> None:
        if opened and self._check:
            report(
                ConnectionHeld(
                    f"a query inside `released()` has opened a connection ({', '.join(opened)}),"
                    " which was held while the slow call ran; query before the block or after it,"
                    " or give each slow call a block of its own"
                ),
                may_raise=not raised,
            )


def give_back(using: Collection[str] | None = None) -> None:
    """Close this thread's connections, or return them to Django's pool.

    Raises `HeldInTransaction`, and closes none then. A `TestCase`'s connection stays open.
    """
    held = of_this_thread(using)
    in_transaction = [each.alias for each in held if is_in_transaction(each)]
    if in_transaction:
        raise held_in_transaction(in_transaction)
    for connection in held:
        if not is_in_testcase(connection):
            connection.close()


def give_back_if_possible(using: Collection[str] | None = None) -> None:
    """As `give_back()`, for code that must go on: a transaction raises with DEBUG on only. With
    DEBUG off it is counted and logged, and its connection stays."""
    held = of_this_thread(using)
    in_transaction = [each for each in held if is_in_transaction(each)]
    if in_transaction:
        report(held_in_transaction([each.alias for each in in_transaction]))
    for connection in held:
        if not connection.in_atomic_block and connection not in in_transaction:
            connection.close()


def held_in_transaction(aliases: Collection[str]) -> HeldInTransaction:
    return HeldInTransaction(
        f"a transaction is open on {', '.join(sorted(aliases))}, so its connection can't be given"
        " back before the slow call; end the `atomic()` block first, or mark the view"
        " `@transaction.non_atomic_requests` where ATOMIC_REQUESTS is on"
    )


def report(violation: ConnectionHeld, *, may_raise: bool = True) -> None:
    """Raise the violation with DEBUG on; else count and log it."""
    if settings.DEBUG and may_raise:
        raise violation
    from generation.telemetry import metrics  # late: `released()` alone needs no library but Django

    metrics.GUARD_VIOLATIONS.inc()
    logger.error("%s", violation)
