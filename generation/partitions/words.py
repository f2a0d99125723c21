"""Indexes of the words in prompts and results, one for each day that is over.

None on the day that is being written: to index a row takes twice the database's CPU that the rest
of its generation does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from generation.partitions.catalog import look
from generation.partitions.intervals import first_id
from generation.partitions.lease import extend, leased

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.database.engine import Database
    from generation.partitions.catalog import Found, Partition
    from generation.partitions.ddl import Parent

WORDS = "words"  # the task
# A text's beginning: PostgreSQL refuses a row whose words take more than 1 MB.
MOST_CHARS = 40_000
# The escape of a line break in JSON would be read as part of the word after it.
DOCUMENT = "to_tsvector('simple', {})".format(
    " || ' ' || ".join(
        [f"left({name}, {MOST_CHARS})" for name in ("prompt", "result")]
        + [
            rf"replace(left({name}, {MOST_CHARS}), '\n', ' ')"
            for name in ("conversation", "blocks")
        ]
    )
)
SEARCHABLE = "encryption_key = ''"  # nobody can search what is encrypted
# The last rows of a day are stored by then, but for those that wait in a journal.
SETTLED = timedelta(hours=1)
LIMIT_S = 3 * 3600.0  # 1 ms of CPU a row
LEASE = timedelta(seconds=LIMIT_S) + timedelta(minutes=10)  # for each of the days

_INDEXES = text("""
SELECT relname, indisvalid
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE starts_with(relname, :prefix) AND relname LIKE '%\\_words'
""")


def index_name(partition: str) -> str:
    return f"{partition}_words"


async def index_words(
    database: Database, parent: Parent, report: Callable[[str], None], *, due_after: timedelta
) -> bool:
    """Index the days that are over, the newest first, and report each.

    Returns False if another process is at it. Raises `DatabaseUnavailable`; an index that was begun
    is made again the next time.
    """
    async with leased(database, WORDS, every=due_after, lasts=LEASE) as holder:
        if holder is None:
            return False
        found = await look(database, parent)
        rows = await database.read(_INDEXES, {"prefix": f"{parent.table}_"})
        made = {row.relname: row.indisvalid for row in rows}
        for part in _over(found):
            name = index_name(part.name)
            if made.get(name):
                continue
            if not await extend(database, WORDS, holder, lasts=LEASE):
                return False  # or two processes would drop what the other makes
            if name in made:  # its building was cut off
                await database.administer(
                    f"DROP INDEX CONCURRENTLY {found.parent.quoted(name)}", limit_s=LIMIT_S
                )
            await database.administer(
                f'CREATE INDEX CONCURRENTLY "{name}" ON {found.parent.quoted(part.name)}'
                f" USING gin (({DOCUMENT})) WHERE {SEARCHABLE}",
                limit_s=LIMIT_S,
            )
            # How frequent a word is, which PostgreSQL has to know to use the index for it.
            await database.administer(f"ANALYZE {found.parent.quoted(part.name)}", limit_s=LIMIT_S)
            report(f"indexed the words of {part.name}")
    return True


def _over(found: Found) -> list[Partition]:
    end = first_id(found.now - SETTLED)
    over = [part for part in found.partitions if not part.is_pending and part.end <= end]
    return sorted(over, key=lambda part: part.start, reverse=True)
