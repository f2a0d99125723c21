"""The limits that there are, as this process read them last."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from generation.errors import DatabaseUnavailable
from generation.limits.rules import Rule
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from generation.limits.terms import Caller, Rules
    from generation.store.limits import LimitTables

logger = throttled_logger(__name__)

REFRESH_S = 5.0  # a change of a limit is applied within that time
_CALLERS = 10_000  # whose rules are kept together


class Policies:
    """All of them are in memory: most deployments have few, and a call looks them up for nothing.
    The table is read again only when it has changed."""

    def __init__(self, tables: LimitTables, caller: Callable[[Rules], Caller]) -> None:
        """`caller` makes one of whom the same limits concern."""
        self._tables = tables
        self._caller = caller
        self._version: tuple[int, int] | None = None  # None: never read
        self._of: dict[tuple[str, str], list[Rule]] = {}
        self.rules: tuple[Rule, ...] = ()
        self.of: Callable[[Any, Any], Caller | None] = self._find_unknown

    @property
    def are_known(self) -> bool:
        return self._version is not None

    def _find_unknown(self, _key_id: Any, _user_id: Any) -> Caller | None:
        raise DatabaseUnavailable("the limits were not read yet", retry_after=1)

    async def refresh(self) -> datetime:
        """Returns the database's time. Raises `DatabaseUnavailable`."""
        version, now = await self._tables.version()
        if version != self._version:
            self._take(await self._tables.rules() if version[0] else ())
            self._version = version
        return now

    def _take(self, rows: Any) -> None:
        known = {rule.id: rule for rule in self.rules}
        rules = []
        for row in rows:
            rule = _rule_of(row)
            before = known.get(rule.id)
            rules.append(before if before == rule else rule)  # blocks know it by its identity
        self.rules = tuple(rules)
        found: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in self.rules:
            found[rule.scope, rule.owner].append(rule)
        self._of = dict(found)
        # Users of one key are one caller where only the key is limited.
        callers = lru_cache(_CALLERS)(self._caller)

        @lru_cache(_CALLERS)
        def find(key_id: Any, user_id: Any) -> Caller | None:
            concerned = self._concerned(key_id, user_id)
            return callers(concerned) if concerned else None

        self.of = find

    def _concerned(self, key_id: Any, user_id: Any) -> Rules:
        """Returns the rules for a call with this key for this user, either of which may be None."""
        found = list(self._of.get(("all", ""), ()))
        for scope, owner in (("key", key_id), ("user", user_id)):
            if owner is not None:
                found += self._of.get((scope, ""), ())
                found += self._of.get((scope, str(owner)), ())
        return tuple((rule, rule.subject(key_id, user_id)) for rule in found)


def _rule_of(row: Any) -> Rule:
    return Rule(
        id=row.id,
        scope=row.scope,
        owner=row.owner,
        provider=row.provider,
        model=row.model,
        unit=row.unit,
        amount=row.amount,
        window=row.window,
        zone=zone_of(row.zone, row.id),
        is_enforced=row.is_enforced,
        extra=row.extra,
        extra_start=row.extra_start,
        generation=row.generation,
    )


def zone_of(name: str, rule_id: int) -> ZoneInfo:
    """Returns UTC for a zone that this host does not know, so that the limit still holds."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        logger.error("limit %d names the time zone %s, which is unknown here", rule_id, name)  # noqa: TRY400  # it says all
        return ZoneInfo("UTC")
