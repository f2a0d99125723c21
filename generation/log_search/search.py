"""A page of the log: the rows next to a place, and how far the search for them came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.utils.timezone import now

from generation.log_search.buckets import GUIDED, is_sparse
from generation.log_search.guide import Range, guide
from generation.log_search.selection import CLOCK_STEP, until_id
from generation.log_search.walk import QUICK_S, CutOff, Walk, limited
from generation.models import GenerationBody, GenerationLog
from generation.partitions.intervals import LAST_ID, ZERO_ID, first_id

if TYPE_CHECKING:
    from django.db.models import Model

    from generation.log_search.selection import Selection
    from generation.log_search.sought import Sought


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: just before an id in the order of time, or just after it."""

    side: Literal["before", "after"]
    key: UUID


@dataclass(slots=True)
class Page:
    """Rows, newest first, on either side of a place."""

    rows: list[Any] = field(default_factory=list)
    edge: UUID | None = None  # up to which the log is searched; None: all of it that can matter
    is_refused: bool = False  # it ended early, since other searches are under way


def search(sought: Sought, *, size: int, place: Place | None = None) -> Page:
    """Returns the rows next to a place, or the newest. Raises Django's errors of the database."""
    newest_first = place is None or place.side == "before"
    bounds = _bounds(sought.asked, place)
    if _is_indexed(sought):
        try:
            with limited(sought.alias, QUICK_S):
                rows = sought.read([bounds], size + 1, newest_first=newest_first)
            return _page(rows, size, newest_first=newest_first)
        except CutOff:  # e.g. of a user with many rows, of which few have that status
            pass
    bounds = _within_log(sought.asked, bounds)
    walk = Walk(
        sought,
        guide(sought.alias, sought.asked, bounds, newest_first=newest_first),
        newest_first=newest_first,
    )
    edge = bounds.end if newest_first else bounds.start
    found = walk.run(size + 1, edge=edge)
    page = _page(found.rows, size, newest_first=newest_first)
    if page.edge is None:
        page.edge, page.is_refused = found.edge, found.is_refused
    return page


def _is_indexed(sought: Sought) -> bool:
    """Whether an index leads to the rows, or to few others besides."""
    asked = sought.asked
    if asked.words:
        return False
    if not asked.names - {"since", "until"} or asked.q:
        return True
    is_guided = bool(asked.names & GUIDED)
    if asked.user or asked.api_key:
        return not (is_guided and is_sparse(sought.alias, asked, asked.until or now()))
    return not is_guided and asked.status not in {"", GenerationLog.Status.SUCCEEDED}


def _bounds(asked: Selection, place: Place | None) -> Range:
    start, end = ZERO_ID, LAST_ID
    if place and place.side == "before":
        end = place.key
    elif place:
        start = UUID(int=min(place.key.int + 1, LAST_ID.int))
    if asked.since:
        start = max(start, first_id(asked.since - CLOCK_STEP))
    if asked.until:
        end = min(end, first_id(asked.until + until_id()))
    return Range(start, end)


def oldest(asked: Selection) -> UUID | None:
    """Returns the oldest id that there can be; None in an empty log. Words are in texts alone,
    which are kept for a shorter time than the log."""
    table: type[Model] = GenerationBody if asked.words else GenerationLog
    key: UUID | None = table._base_manager.order_by("pk").values_list("pk", flat=True).first()
    return key


def _within_log(asked: Selection, bounds: Range) -> Range:
    """Returns the bounds without the time before the oldest row and after the newest."""
    newest = GenerationLog.objects.order_by("-pk").values_list("pk", flat=True).first()
    first = oldest(asked)
    if newest is None or first is None:
        return Range(bounds.start, bounds.start)
    end = UUID(int=min(newest.int + 1, LAST_ID.int))
    return Range(max(bounds.start, first), min(bounds.end, end))


def _page(rows: list[GenerationLog], size: int, *, newest_first: bool) -> Page:
    edge = rows[size - 1].pk if len(rows) > size else None
    rows = rows[:size]
    return Page(rows if newest_first else rows[::-1], edge)
