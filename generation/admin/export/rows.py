"""The rows of an export: all columns of the log, and the texts for those who may read them."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

from django.db.models import F, Func, IntegerField

from generation import conf
from generation.admin.pagination import fetch
from generation.models import GenerationBody, GenerationLog
from generation.privacy.encryption import TEXTS, KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.db.models import Field, QuerySet

BATCH_ROWS = 500
BATCH_BYTES = 4 * 1024 * 1024  # of texts, as they are stored; a row may have more
_SHOWN = (*(name for name in TEXTS if name != "excerpt"), "result_cleaned", "content")


def columns(*, with_texts: bool) -> list[Field[Any, Any]]:
    """Returns what each row has, in order, as fields of the models."""
    log = [each for each in GenerationLog._meta.concrete_fields if not each.many_to_many]
    body = [GenerationBody._meta.get_field(name) for name in _SHOWN]
    return [*log, *body] if with_texts else log  # type: ignore[list-item]  # no relation backwards


class Rows:
    """Reads rows by their ids. Memory holds one batch."""

    def __init__(self, alias: str, *, with_texts: bool) -> None:
        self.columns = columns(with_texts=with_texts)
        self._alias = alias
        self._ring = KeyRing.of(conf.load()) if with_texts else None
        self._figures = [each.attname for each in columns(with_texts=False)]

    def batches(self, keys: list[UUID]) -> Iterator[list[UUID]]:
        """Yields ascending ids in batches whose rows are read at once."""
        for start in range(0, len(keys), BATCH_ROWS):
            part = keys[start : start + BATCH_ROWS]
            yield from self._by_size(part) if self._ring else [part]

    def _by_size(self, keys: list[UUID]) -> Iterator[list[UUID]]:
        """A text's size is known without reading it."""
        sizes = dict(fetch(self._bodies(keys).values_list("pk", _SIZE)))
        batch: list[UUID] = []
        total = 0
        for key in keys:
            size = sizes.get(key, 0)
            if batch and total + size > BATCH_BYTES:
                yield batch
                batch, total = [], 0
            batch.append(key)
            total += size
        yield batch

    def read(self, keys: list[UUID]) -> list[tuple[Any, ...]]:
        """Returns the rows that are still there. A text that is no longer kept is None. Raises
        `TooLong` and Django's errors."""
        logs = GenerationLog.objects.using(self._alias).order_by("pk")
        logs = logs.filter(pk__gte=keys[0], pk__lte=keys[-1], pk__in=keys)
        figures = fetch(logs.values_list(*self._figures))
        if self._ring is None:
            return figures
        texts = {}
        for body in fetch(self._bodies(keys)):
            shown = self._ring.reveal(body)
            texts[body.pk] = tuple(getattr(shown, name) for name in _SHOWN)
        none = (None,) * len(_SHOWN)
        return [(*row, *texts.get(row[0], none)) for row in figures]

    def _bodies(self, keys: list[UUID]) -> QuerySet[GenerationBody]:
        bodies = GenerationBody.objects.using(self._alias)
        # The bounds spare PostgreSQL the partitions of other days.
        return bodies.filter(pk__gte=keys[0], pk__lte=keys[-1], pk__in=keys)


def _size(name: str) -> Any:
    return Func(F(name), function="octet_length", output_field=IntegerField())


_SIZE = reduce(operator.add, map(_size, (name for name in TEXTS if name != "excerpt")))
