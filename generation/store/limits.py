"""The SQL of limits: read them, lease from them, and give back what dead processes have leased.

The free part of a limit is decided in one row, by expressions on the row that is being updated:
whatever is joined to it would be of an older snapshot after a wait for its lock. Rows are locked in
one order everywhere, windows before leases, so that no two statements can deadlock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, Integer, Interval, Text, bindparam, text

from generation.store.documents import as_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Row, TextClause
    from sqlalchemy.types import TypeEngine

    from generation.database.engine import Database

KEPT = timedelta(days=400)  # windows that are over
FOLDED_AFTER = timedelta(days=7)  # leases of processes that are gone for so long


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process asks of one window. Amounts are in the limit's unit."""

    rule: int
    subject: str
    start: datetime
    generation: int
    amount: int  # of the whole window
    refill_s: int | None  # of a rate; None: a budget, or requests at once
    need: int  # so much, or nothing
    want: int  # at most, if there is plenty
    forced: int  # spent already beyond what was granted
    given: int  # back


# What becomes of `committed` by one ask; {committed} and {as_of} are the row's own. A rate has
# drained since `as_of`, which moves by whole units so that no part of one is lost.
_OUTCOME = """
    SELECT drained.rest + ask.forced + granted.amount AS committed,
           granted.amount + ask.forced - ask.given AS change,
           CASE WHEN ask.refill_s IS NULL OR {committed} - drained.units <= 0
                THEN statement_timestamp()
                ELSE {as_of} + CAST(drained.units AS double precision) * ask.refill_s
                     / nullif(ask.amount, 0) * interval '1 second' END AS as_of
    FROM (SELECT CAST(CASE WHEN ask.refill_s IS NULL THEN 0 ELSE greatest(0, least({committed},
              floor(extract(epoch FROM statement_timestamp() - {as_of}) * ask.amount
                    / ask.refill_s))) END AS bigint) AS units) AS since,
         LATERAL (SELECT units, CASE WHEN ask.refill_s IS NULL THEN {committed} - ask.given
              ELSE greatest(0, {committed} - units - ask.given) END AS rest) AS drained,
         LATERAL (SELECT ask.amount - drained.rest - ask.forced AS amount) AS free,
         LATERAL (SELECT CASE
              WHEN greatest(ask.need, ask.want) <= 0 OR free.amount < greatest(ask.need, 1) THEN 0
              ELSE least(free.amount,
                         greatest(ask.need, least(ask.want, free.amount / (2 * :processes)))) END
              AS amount) AS granted
"""
_ASK = """
WITH ask AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:asks AS json)) AS ask(
        rule bigint, subject text, start timestamptz, generation int, amount bigint, refill_s int,
        need bigint, want bigint, forced bigint, given bigint)
), alive AS (
    INSERT INTO generation_limitholder (run, alive_until, name)
    VALUES (CAST(:run AS uuid), statement_timestamp() + :ttl, :name)
    ON CONFLICT (run) DO UPDATE SET alive_until = excluded.alive_until
), got AS (
    INSERT INTO generation_limitwindow AS w
        (limit_id, subject, start, generation, committed, change, as_of)
    SELECT ask.rule, ask.subject, ask.start, ask.generation,
           outcome.committed, outcome.change, statement_timestamp()
    FROM ask, LATERAL ({new}) AS outcome
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (limit_id, subject, start, generation) DO UPDATE
    SET (committed, change, as_of) = (
        SELECT outcome.committed, outcome.change, outcome.as_of
        FROM ask, LATERAL ({known}) AS outcome
        WHERE ask.rule = w.limit_id AND ask.subject = w.subject AND ask.start = w.start
          AND ask.generation = w.generation)
    RETURNING w.*
), answered AS (
    SELECT got.*, ask.amount, ask.refill_s
    FROM got JOIN ask ON ask.rule = got.limit_id AND ask.subject = got.subject
        AND ask.start = got.start AND ask.generation = got.generation
), mine AS (
    SELECT l.id FROM generation_limitlease AS l JOIN answered ON l.window_id = answered.id
    WHERE l.run = CAST(:run AS uuid) ORDER BY l.id FOR UPDATE OF l
), leased AS (
    INSERT INTO generation_limitlease AS l (run, window_id, granted)
    SELECT CAST(:run AS uuid), id, change FROM answered
    WHERE refill_s IS NULL AND (SELECT count(*) FROM mine) >= 0
    ORDER BY id
    ON CONFLICT (run, window_id) DO UPDATE SET granted = l.granted + excluded.granted
    RETURNING l.id, l.window_id, l.granted
)
SELECT a.limit_id, a.subject, a.start, a.generation, a.id AS window_id, a.change,
    a.amount - a.committed AS left_over, a.alerted, leased.id AS lease, leased.granted,
    clock_timestamp() AS now,
    (SELECT count(*) FROM generation_limitholder WHERE alive_until > statement_timestamp())
        AS processes,
    a.folded + CASE WHEN a.refill_s IS NULL THEN (
        SELECT CAST(coalesce(sum(CASE WHEN h.alive_until > statement_timestamp() THEN l.settled
                                      ELSE greatest(l.granted, l.settled) END), 0) AS bigint)
        FROM generation_limitlease AS l LEFT JOIN generation_limitholder AS h ON h.run = l.run
        WHERE l.window_id = a.id AND l.run <> CAST(:run AS uuid)) ELSE 0 END AS used_elsewhere
FROM answered AS a LEFT JOIN leased ON leased.window_id = a.id
"""
_VERSION = """
SELECT count(*) AS rows, coalesce(sum(hashtextextended(CAST(l.* AS text), 0)), 0) AS digest,
    clock_timestamp() AS now
FROM generation_limit AS l
"""
_RULES = """
SELECT id, scope, coalesce(CAST(api_key_id AS text), CAST(user_id AS text), '') AS owner,
    provider, model, unit, amount, "window", zone, is_enforced, extra, extra_start, generation
FROM generation_limit WHERE amount IS NOT NULL ORDER BY id
"""
# What the dead have spent beyond their grants is taken of the window; what they have in flight is
# not in flight any more. What they did not spend stays taken until `limit reconcile` has looked.
_BURY = """
WITH dead AS (
    SELECT l.id, l.window_id, CASE WHEN r.unit = 'in_flight' THEN 0 END AS granted
    FROM generation_limitlease AS l
    JOIN generation_limitholder AS h ON h.run = l.run AND h.alive_until < statement_timestamp()
    JOIN generation_limitwindow AS w ON w.id = l.window_id
    JOIN generation_limit AS r ON r.id = w.limit_id
    WHERE (r.unit = 'in_flight' AND l.granted <> 0)
       OR (r.unit <> 'in_flight' AND l.settled > l.granted)
), windows AS (
    SELECT id FROM generation_limitwindow WHERE id IN (SELECT window_id FROM dead)
    ORDER BY limit_id, subject, start, generation FOR UPDATE
), leases AS (
    SELECT l.id, l.window_id, l.granted AS was, coalesce(dead.granted, l.settled) AS becomes
    FROM generation_limitlease AS l JOIN dead ON dead.id = l.id
    WHERE (SELECT count(*) FROM windows) >= 0 ORDER BY l.id FOR UPDATE OF l
), changed AS (
    UPDATE generation_limitlease AS l SET granted = leases.becomes
    FROM leases WHERE l.id = leases.id
)
UPDATE generation_limitwindow AS w SET committed = w.committed + moved.amount
FROM (SELECT window_id, CAST(sum(becomes - was) AS bigint) AS amount
      FROM leases GROUP BY 1) AS moved
WHERE w.id = moved.window_id
"""
_COMMITTED = """
SELECT id, committed FROM generation_limitwindow WHERE id = ANY(CAST(:ids AS bigint[]))
"""
_RETIRE = """
UPDATE generation_limitholder SET alive_until = statement_timestamp()
WHERE run = CAST(:run AS uuid)
"""
_ALERT = """
UPDATE generation_limitwindow SET alerted = :level WHERE id = :id AND alerted < :level
RETURNING id
"""
_FOLD = """
WITH gone AS (
    SELECT l.id, l.window_id, greatest(l.granted, l.settled) AS used
    FROM generation_limitlease AS l
    JOIN generation_limitholder AS h ON h.run = l.run
    WHERE h.alive_until < statement_timestamp() - :folded_after
), windows AS (
    SELECT id FROM generation_limitwindow WHERE id IN (SELECT window_id FROM gone)
    ORDER BY limit_id, subject, start, generation FOR UPDATE
), deleted AS (
    DELETE FROM generation_limitlease WHERE id IN (SELECT id FROM gone)
        AND (SELECT count(*) FROM windows) >= 0
), holders AS (
    DELETE FROM generation_limitholder
    WHERE alive_until < statement_timestamp() - :folded_after
)
UPDATE generation_limitwindow AS w SET folded = w.folded + sums.used
FROM (SELECT window_id, CAST(sum(used) AS bigint) AS used FROM gone GROUP BY 1) AS sums
WHERE w.id = sums.window_id
"""
_PURGE = """
WITH old AS (
    SELECT w.id
    FROM generation_limitwindow AS w LEFT JOIN generation_limit AS r ON r.id = w.limit_id
    WHERE r.id IS NULL OR (w.start > '1970-01-02' AND w.start < statement_timestamp() - :kept)
       OR (r."window" IN ('second', 'minute', 'hour')
           AND w.as_of < statement_timestamp() - interval '1 day')
    LIMIT 10000 FOR UPDATE OF w SKIP LOCKED
), leases AS (
    DELETE FROM generation_limitlease WHERE window_id IN (SELECT id FROM old)
)
DELETE FROM generation_limitwindow WHERE id IN (SELECT id FROM old)
"""


class LimitTables:
    """Each method is one statement, and raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        new = _OUTCOME.format(committed="CAST(0 AS bigint)", as_of="statement_timestamp()")
        known = _OUTCOME.format(committed="w.committed", as_of="w.as_of")
        self._ask = _text(
            _ASK.format(new=new, known=known),
            asks=Text(), run=Text(), name=Text(), ttl=Interval(), processes=Integer(),
        )  # fmt: skip
        self._version = text(_VERSION)
        self._rules = text(_RULES)
        self._bury = text(_BURY)
        self._committed = _text(_COMMITTED, ids=ARRAY(BigInteger()))
        self._retire = _text(_RETIRE, run=Text())
        self._alert = _text(_ALERT, level=Integer(), id=BigInteger())
        self._fold = _text(_FOLD, folded_after=Interval())
        self._purge = _text(_PURGE, kept=Interval())

    async def ask(
        self, asks: Sequence[Ask], *, run: UUID, name: str, ttl: timedelta, processes: int
    ) -> Sequence[Row[Any]]:
        """Lease, give back, and say that this run is alive."""
        return await self._database.run(
            self._ask,
            {
                "asks": as_document(asks),
                "run": str(run),
                "name": name,
                "ttl": ttl,
                "processes": processes,
            },
        )

    async def version(self) -> tuple[tuple[int, int], datetime]:
        """Returns what changes with any change of a limit, and the database's time."""
        row = (await self._database.read(self._version))[0]
        return (row.rows, int(row.digest)), row.now

    async def rules(self) -> Sequence[Row[Any]]:
        return await self._database.read(self._rules)

    async def committed(self, window_ids: Sequence[int]) -> Sequence[Row[Any]]:
        """Returns what is used or leased of windows."""
        return await self._database.read(self._committed, {"ids": list(window_ids)})

    async def bury(self) -> None:
        """Square the leases of processes that have died."""
        await self._database.run(self._bury)

    async def retire(self, run: UUID) -> None:
        """Say that a run has ended."""
        await self._database.run(self._retire, {"run": str(run)})

    async def alert(self, window_id: int, level: int) -> bool:
        """Returns whether this process is the first to see that a window has reached this level."""
        return bool(await self._database.run(self._alert, {"id": window_id, "level": level}))

    async def tidy(self) -> None:
        """Forget windows that are over for long, and processes that are gone for long."""
        await self._database.run(self._fold, {"folded_after": FOLDED_AFTER})
        await self._database.run(self._purge, {"kept": KEPT})


def _text(sql: str, **types: TypeEngine[Any]) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=kind) for name, kind in types.items()))
