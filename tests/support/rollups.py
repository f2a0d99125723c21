"""Rollups as the log's rows give them, computed here; and a process that keeps them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import connections

from generation import conf
from generation.database.engine import Database
from generation.models import GenerationLog, Latency, Rollup, Spend, Spender
from generation.rollups.buckets import ROLLUP_LENGTHS, SPENDER_LENGTHS, floor
from generation.rollups.histogram import step_of
from generation.rollups.upkeep import Rollups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

NOW = timedelta(0)
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
Sums = dict[tuple[Any, ...], tuple[Any, ...]]
# The tables of rollups, with how many of their columns are the key.
TABLES: dict[Any, int] = {Rollup: 7, Latency: 4, Spend: 5, Spender: 4}


def _opened() -> contextlib.AbstractAsyncContextManager[Database]:
    return Database.open(conf.load(), connections.settings["default"], strict=True)


@contextlib.asynccontextmanager
async def keeping() -> AsyncIterator[Rollups]:
    """A process's upkeep of the rollups."""
    async with _opened() as database:
        yield Rollups(database, conf.load())


async def catch_up() -> None:
    async with _opened() as database:
        assert await Rollups(database, conf.load()).follow(every=NOW, limit_s=60)


def roll_up() -> None:
    asyncio.run(catch_up())


def stored() -> tuple[Sums, ...]:
    """What the tables of `TABLES` have, by their keys."""
    return tuple(
        {tuple(row[:keys]): tuple(row[keys:]) for row in table.objects.values_list(*_fields(table))}
        for table, keys in TABLES.items()
    )


def computed() -> tuple[Sums, ...]:
    """The same from the log."""
    logs = list(GenerationLog.objects.all())
    succeeded = [log for log in logs if log.status == "succeeded"]
    return (
        {
            (minutes, *key): _rollup(rows)
            for minutes in ROLLUP_LENGTHS
            for key, rows in _grouped(
                logs,
                lambda log, minutes=minutes: (
                    floor(log.created_at, minutes),
                    log.provider,
                    log.model,
                    log.status,
                    log.error_type,
                    (log.attempts[-1]["status"] or 0) if log.attempts else 0,
                ),
            )
        },
        {
            (minutes, *key): _latency(rows)
            for minutes in ROLLUP_LENGTHS
            for target in (lambda log: (log.provider, log.model), lambda _log: ("", ""))
            for key, rows in _grouped(
                succeeded,
                lambda log, minutes=minutes, target=target: (
                    floor(log.created_at, minutes),
                    *target(log),
                ),
            )
        },
        {
            key: _spend(rows)
            for key, rows in _grouped(
                logs,
                lambda log: (
                    floor(log.created_at, 60),
                    _user(log),
                    log.api_key_id or 0,
                    log.provider,
                    log.model,
                ),
            )
        },
        {
            (minutes, bucket, kind, key): _spend(rows)
            for minutes in SPENDER_LENGTHS
            for kind, name in (("user", _user), ("key", lambda log: str(log.api_key_id or 0)))
            for (bucket, key), rows in _grouped(
                logs,
                lambda log, minutes=minutes, name=name: (
                    floor(log.created_at, minutes),
                    name(log),
                ),
            )
        },
    )


def _user(log: GenerationLog) -> str:
    return "" if log.user_id is None else str(log.user_id)


def _fields(model: Any) -> list[str]:
    return [field.name for field in model._meta.local_concrete_fields if field.name != "pk"]


def _grouped(logs: Iterable[GenerationLog], key: Any) -> Iterable[tuple[Any, list[GenerationLog]]]:
    groups = defaultdict(list)
    for log in logs:
        groups[key(log)].append(log)
    return groups.items()


def _rollup(rows: list[GenerationLog]) -> tuple[Any, ...]:
    targets = [[(each["provider"], each["model"]) for each in row.attempts] for row in rows]
    failed = {_user(row) for row in rows if row.status != "succeeded"} - {""}
    return (
        min(row.created_at for row in rows),
        max(row.created_at for row in rows),
        len(rows),
        *_pricing(rows),
        sum(len(each) > 1 for each in targets),
        sum(each[0] != each[-1] for each in targets if each),
        *(sum(getattr(row, name) or 0 for row in rows) for name in TOKENS),
        _cost(rows),
        sorted(failed),
        max(row.cost_usd or Decimal(0) for row in rows),
        max(row.total_tokens or 0 for row in rows),
        sorted({row.stop_reason for row in rows} - {""}),
        max(step_of(row.latency_ms) for row in rows),
    )


def _latency(rows: list[GenerationLog]) -> tuple[list[int], list[int]]:
    counts = sorted(Counter(step_of(row.latency_ms) for row in rows).items())
    return [step for step, _ in counts], [count for _, count in counts]


def _spend(rows: list[GenerationLog]) -> tuple[Any, ...]:
    return (
        len(rows),
        sum(row.status != "succeeded" for row in rows),
        *_pricing(rows),
        *(sum(getattr(row, name) or 0 for row in rows) for name in TOKENS[:2]),
        _cost(rows),
    )


def _pricing(rows: list[GenerationLog]) -> tuple[int, int]:
    unknown = [row for row in rows if row.cost_usd is None]
    return len(rows) - len(unknown), sum(
        row.status == "succeeded" or bool(row.input_tokens or row.output_tokens) for row in unknown
    )


def _cost(rows: list[GenerationLog]) -> Decimal:
    return sum((row.cost_usd for row in rows if row.cost_usd is not None), Decimal(0))
