"""Words in prompts and results: whole words in any case, all of them.

Where a day has an index, it leads to the rows. Elsewhere each row is read: texts that have the
letters at all are few, and only those are taken apart into words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

from generation.models import GenerationBody
from generation.partitions.words import DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

_HAS_LETTERS = "({})".format(
    " OR ".join(f"{name} ILIKE %s" for name in ("prompt", "result", "conversation", "blocks"))
)
_MATCHES = f"({DOCUMENT} @@ plainto_tsquery('simple', %s))"
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\%_"})


def lexemes(alias: str, words: str) -> list[str]:
    """Returns the words into which PostgreSQL divides a text; none if it has only signs."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT lexeme FROM unnest(to_tsvector('simple', %s))", [words])
        return [row[0] for row in cursor.fetchall()]


def bodies(words: str, found: Sequence[str]) -> QuerySet[GenerationBody]:
    """Returns the texts that have all of the words; `found` are their lexemes."""
    texts = GenerationBody.objects.filter(_sql(_MATCHES, words), encryption_key="")
    for lexeme in found:
        like = f"%{lexeme.translate(_SPECIAL)}%"
        texts = texts.filter(_sql(_HAS_LETTERS, *[like] * _HAS_LETTERS.count("%s")))
    return texts


def _sql(sql: str, *params: str) -> Q:
    return Q(RawSQL(sql, params, BooleanField()))  # noqa: S611  # our own SQL, with parameters
