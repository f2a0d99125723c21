"""The rows of an export: all columns of the log, and the texts for those who may read them."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import F, Func, IntegerField, Model

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
_TEXTS = tuple(name for name in TEXTS if name != "excerpt")
_MARKS = ("result_cleaned", "content")
_SHOWN = (*_TEXTS, *_MARKS)
Row = TypeVar("Row", bound=Model)


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
        logs = _of(GenerationLog.objects.using(self._alias), keys).order_by("pk")
        figures: list[tuple[Any, ...]] = fetch(logs.values_list(*self._figures))
        ring = self._ring
        if ring is None:
            return figures
        texts = {}
        for key, encryption_key, *given in fetch(
            self._bodies(keys).values_list("pk", "encryption_key", *_TEXTS, *_MARKS)
        ):
            if encryption_key:
                for at, name in enumerate(_TEXTS):
                    given[at] = ring.show(key, name, given[at], encryption_key)
            texts[key] = given
        none = (None,) * len(_SHOWN)
        return [(*row, *texts.get(row[0], none)) for row in figures]

    def _bodies(self, keys: list[UUID]) -> QuerySet[GenerationBody]:
        return _of(GenerationBody.objects.using(self._alias), keys)


def _of(found: QuerySet[Row], keys: list[UUID]) -> QuerySet[Row]:
    """As one parameter: of 500, Django and psycopg make 15 ms of work. The bounds spare PostgreSQL
    the partitions of other days."""
    table = found.model._meta.db_table
    found = found.filter(pk__gte=keys[0], pk__lte=keys[-1])
    return found.extra(where=[f'"{table}"."id" = ANY(%s)'], params=[keys])  # noqa: S610  # our own table


def _size(name: str) -> Any:
    return Func(F(name), function="octet_length", output_field=IntegerField())


_SIZE = reduce(operator.add, map(_size, _TEXTS))
