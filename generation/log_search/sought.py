"""The rows that a selection means, for statements on a part of the log at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.log_search import words
from generation.log_search.selection import conditions

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from generation.log_search.selection import Selection
    from generation.models import GenerationBody, GenerationLog


class Sought:
    """Made once for a search: it asks the database who is meant by a user or an API key."""

    def __init__(self, logs: QuerySet[GenerationLog], asked: Selection) -> None:
        """`logs`: all of them, with the columns that are to be read."""
        self.asked = asked
        self.alias = logs.db
        self.logs = logs.filter(conditions(asked))
        self._bodies: QuerySet[GenerationBody] | None = None
        if asked.words:
            self._bodies = words.bodies(asked.words, words.lexemes(logs.db, asked.words))

    def between(self, start: Any, end: Any) -> QuerySet[GenerationLog]:
        """Returns those with ids from one until just before another.

        The texts get the same bounds, so that PostgreSQL reads no other day's.
        """
        logs = self.logs.filter(pk__gte=start, pk__lt=end)
        if self._bodies is None:
            return logs
        texts = self._bodies.filter(pk__gte=start, pk__lt=end)
        return logs.filter(pk__in=texts.values("pk"))
