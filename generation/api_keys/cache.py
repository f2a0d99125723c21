"""The per-process cache of API keys: each is looked up once, and remembered for half a minute."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from generation.api_keys import tokens
from generation.conf import parse_targets
from generation.errors import Unauthorized
from generation.records import Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from generation.database.engine import Database
    from generation.store.api_keys import ApiKeys, StoredKey

KEPT_S = 30.0  # a revoked key works no longer than this
REFRESH_S = 20.0  # an older entry is looked up again while it still answers
SIZE = 10_000  # of known keys, and of unknown ones
RECORD_USE_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """What decides whether a key is accepted, and for what."""

    digest: str
    expires_at: datetime | None
    grant: Grant


class ApiKeyCache:
    """Recognises API keys, mostly without a statement."""

    def __init__(  # noqa: PLR0913  # what tests shorten, by name
        self,
        database: Database,
        stored: ApiKeys,
        pepper: str,
        read_limits: Callable[[], Awaitable[None]],
        *,
        kept_s: float = KEPT_S,
        refresh_s: float = REFRESH_S,
        size: int = SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_limits`: what was set before it is called is known after it."""
        self._database = database
        self._stored = stored
        self._pepper = pepper
        self._read_limits = read_limits
        self._refresh_s = refresh_s
        self._clock = clock
        # Apart, so that guesses push out no key that is in use.
        self._known = RecentKeys(kept_s, size, clock)
        self._unknown = RecentKeys(kept_s, size, clock)
        self._lookups: dict[str, asyncio.Task[Known | None]] = {}
        self._used: dict[int, datetime] = {}

    async def recognise(self, text: str) -> Grant:
        """Returns what the key allows. Raises `Unauthorized` or `DatabaseUnavailable`."""
        prefix = tokens.parse_prefix(text)
        if prefix is None:
            raise Unauthorized("the API key does not have the form of one")
        known = await self._look_up(prefix)
        now = datetime.now(UTC)
        expected = known.digest if known else None
        if not tokens.matches(text, self._pepper, expected) or known is None:
            raise Unauthorized("the API key is unknown or revoked")
        if known.expires_at is not None and known.expires_at <= now:
            raise Unauthorized("the API key has expired")
        if known.grant.key_id is not None:
            self._used[known.grant.key_id] = now
        return known.grant

    async def record_use(self) -> None:
        """Store when keys were last used, in one statement. Raises `DatabaseUnavailable`."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._stored.record_use(used)
        except BaseException:
            self._used = used | self._used
            raise

    async def _look_up(self, prefix: str) -> Known | None:
        """Returns the key from memory, or from the database; refreshes an ageing one."""
        for recent in (self._known, self._unknown):
            found = recent.get(prefix)
            if found is not None:
                known, age_s = found
                if age_s > self._refresh_s and prefix not in self._lookups:
                    self._begin_lookup(prefix)
                return known
        lookup = self._lookups.get(prefix) or self._begin_lookup(prefix)
        return await self._database.within(asyncio.shield(lookup))

    def _begin_lookup(self, prefix: str) -> asyncio.Task[Known | None]:
        # In an empty context, since it may outlive the request that began it.
        lookup = asyncio.get_running_loop().create_task(
            self._find(prefix), context=contextvars.Context()
        )
        self._lookups[prefix] = lookup
        lookup.add_done_callback(partial(self._end_lookup, prefix))
        return lookup

    def _end_lookup(self, prefix: str, done: asyncio.Task[Known | None]) -> None:
        del self._lookups[prefix]
        if not done.cancelled():
            done.exception()  # perhaps nobody waits for it any more, and asyncio would log that

    async def _find(self, prefix: str) -> Known | None:
        at = self._clock()
        stored = await self._stored.find(prefix)
        if stored is None:
            self._known.forget(prefix)
            self._unknown.put(prefix, None, at)
            return None
        if prefix not in self._known:
            # Limits are read every few seconds, and those of a new key may be newer than that.
            await self._database.within(self._read_limits())
        known = _known(stored)
        self._unknown.forget(prefix)
        self._known.put(prefix, known, at)
        return known


class RecentKeys:
    """The last `size` prefixes that were looked up; each answers for `kept_s` seconds."""

    def __init__(self, kept_s: float, size: int, clock: Callable[[], float]) -> None:
        self._kept_s = kept_s
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[str, tuple[Known | None, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, prefix: str) -> bool:
        """Whether a prefix was looked up, however long ago."""
        return prefix in self._entries

    def get(self, prefix: str) -> tuple[Known | None, float] | None:
        """Returns an entry and its age in seconds; None for one that is absent or too old."""
        entry = self._entries.get(prefix)
        if entry is None:
            return None
        known, at = entry
        age_s = self._clock() - at
        return (known, age_s) if age_s < self._kept_s else None

    def put(self, prefix: str, known: Known | None, at: float) -> None:
        self._entries[prefix] = (known, at)
        self._entries.move_to_end(prefix)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, prefix: str) -> None:
        self._entries.pop(prefix, None)


def _known(stored: StoredKey) -> Known:
    # Of a provider that the settings have no more, a key allows nothing.
    targets = parse_targets(stored.allowed_models)
    return Known(
        digest=stored.digest,
        expires_at=stored.expires_at,
        grant=Grant(
            stored.id,
            stored.users,
            targets,
            is_service=stored.is_service,
            log_content=stored.log_content,
            weight=stored.weight,
        ),
    )
