"""Searches of the log, page by page."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from generation.log_search.search import Place, search
from generation.log_search.selection import parse_query
from generation.log_search.sought import Sought
from generation.models import GenerationLog


def sought(query: str) -> Sought:
    asked, faults = parse_query(query)
    assert not faults
    return Sought(GenerationLog.objects.all(), asked)


def leaf_through(
    query: str, side: Literal["before", "after"] = "before", *, size: int = 60
) -> tuple[list, int]:
    """The keys on all pages in one direction, and how many pages there were."""
    found: list = []
    end = (1 << 128) - 1 if side == "before" else 0
    place = Place(side, UUID(int=end))
    for pages in range(1, 1000):
        page = search(sought(query), size=size, place=place)
        rows = page.rows if side == "before" else page.rows[::-1]
        found += [row.pk for row in rows]
        if page.edge is None:
            return found, pages
        place = Place(side, page.edge)
    raise AssertionError("the pages have no end")
