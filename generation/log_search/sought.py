"""The rows that a selection means, for statements on a part of the log at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, UUIDField
from django.db.models.expressions import RawSQL

from generation.log_search import words
from generation.log_search.selection import conditions
from generation.models import GenerationLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

    from generation.log_search.guide import Range
    from generation.log_search.selection import Selection
    from generation.models import GenerationBody

# In the place of a part's bounds, while the ORM makes the SQL for all parts: random numbers.
_START, _END = (
    UUID("d8f0b7c5-6a0e-4f4e-9b1d-5f0a3c1e7b92"),
    UUID("0c9e4a57-3f1b-4d0a-8f27-b1d6e2a94c38"),
)


class Sought:
    """Made once for a search: it asks the database who is meant by a user or an API key."""

    def __init__(self, logs: QuerySet[GenerationLog], asked: Selection) -> None:
        """`logs`: all of them, with the columns that are to be read."""
        self.began = time.monotonic()  # what the search may take counts from here
        self.asked = asked
        self.alias = logs.db
        self._made: dict[object, tuple[str, list[Any]] | None] = {}
        self.logs = logs.filter(conditions(asked))
        self._bodies: QuerySet[GenerationBody] | None = None
        if asked.words:
            self._bodies = words.bodies(asked.words, words.lexemes(logs.db, asked.words))

    def read(
        self, ranges: Sequence[Range], count: int, *, newest_first: bool
    ) -> list[GenerationLog]:
        """Returns the first rows that the ranges have, in one statement.

        One range after the other, through the key or a better index: a condition that names them
        all would let PostgreSQL read everything between them.
        """
        is_one, direction = len(ranges) == 1, "DESC" if newest_first else "ASC"
        by_index = any(part.is_indexed for part in ranges)
        key = is_one, by_index, newest_first
        if key not in self._made:
            self._made[key] = self._make(
                is_one=is_one, by_index=by_index, newest_first=newest_first
            )
        made = self._made[key]
        if made is None:
            return []
        sql, parameters = made
        sql += f" LIMIT {count:d}"
        if is_one:
            # As values, so that the planner sees which partitions it can leave out.
            bounds = {_START: ranges[0].start, _END: ranges[0].end}
            parameters = [
                bounds.get(each, each) if isinstance(each, UUID) else each for each in parameters
            ]
        else:
            sql = (
                "SELECT found.* FROM unnest(%s::uuid[], %s::uuid[]) AS part (first_id, end_id)"  # noqa: S608  # the ORM's SQL, with its parameters
                f" CROSS JOIN LATERAL ({sql}) AS found ORDER BY found.id {direction}"
                f" LIMIT {count:d}"
            )
            starts, ends = [str(part.start) for part in ranges], [str(part.end) for part in ranges]
            parameters = [starts, ends, *parameters]
        return list(GenerationLog.objects.using(self.alias).raw(sql, parameters))

    def _make(
        self, *, is_one: bool, by_index: bool, newest_first: bool
    ) -> tuple[str, list[Any]] | None:
        """Returns the SQL for the rows between two ids, once for a search, since it takes the ORM
        two milliseconds; None if there can't be any, e.g. of a user whom nobody knows."""
        start: Any = _START
        end: Any = _END
        if not is_one:
            start = RawSQL("part.first_id", (), UUIDField())
            end = RawSQL("part.end_id", (), UUIDField())
        logs = self.logs.filter(pk__gte=start, pk__lt=end)
        if self._bodies is not None:
            # The texts get the same bounds, so that PostgreSQL reads no other day's.
            texts = self._bodies.filter(pk__gte=start, pk__lt=end).values("pk")
            logs = logs.filter(_has(texts, by_index=by_index))
        try:
            sql, parameters = logs.order_by("-pk" if newest_first else "pk").query.sql_with_params()
        except EmptyResultSet:
            return None
        return sql, list(parameters)


def _has(texts: QuerySet[GenerationBody, Any], *, by_index: bool) -> RawSQL:
    """Returns the condition for logs whose texts these are.

    It is no join, for which the planner may have all texts read again for each row, since it takes
    a few minutes for a single row. `by_index`: an index finds the texts; or else they are looked at
    one by one, those of the rows that the other filters leave.
    """
    id_ = f'"{GenerationLog._meta.db_table}"."id"'
    if by_index:
        sql, parameters = texts.query.sql_with_params()
        condition = f"{id_} = ANY (ARRAY({sql}))"
    else:
        texts = texts.filter(pk=RawSQL(id_, ()))  # noqa: S611  # our own SQL
        sql, parameters = texts.query.sql_with_params()
        condition = f"EXISTS ({sql} OFFSET 0)"  # which keeps it from becoming a join
    return RawSQL(condition, parameters, BooleanField())  # noqa: S611  # the ORM's SQL, with its parameters
