"""Tickets: what a page that knows its visitor gives to its script, so that lean routes let it in.

A session takes two statements and a thread to look up, once a second for each tab that is open. A
ticket is signed under SECRET_KEY and takes none. It outlives the end of a session or an account by
its own few minutes at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from django.core import signing

from generation.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

Purpose = Literal["pool", "generate"]

HEADER = b"staccato-ticket"
_META = "HTTP_STACCATO_TICKET"
VALID_S = 900


def issue(purpose: Purpose, holder: Any = None) -> str:
    """Returns a ticket for `VALID_S` seconds. `holder` is whatever JSON names who has it."""
    return signing.dumps(holder, salt=_salt(purpose))


def read(purpose: Purpose, meta: Mapping[str, Any]) -> Any:
    """Returns the holder of the request's ticket. Raises `Unauthorized` if it is not valid."""
    try:
        return signing.loads(meta[_META], salt=_salt(purpose), max_age=VALID_S)
    except signing.BadSignature:
        raise Unauthorized("the page's ticket is not valid any more; load the page again") from None


def is_shown(meta: Mapping[str, Any]) -> bool:
    return _META in meta


def _salt(purpose: Purpose) -> str:
    return f"staccato.ticket.{purpose}"
