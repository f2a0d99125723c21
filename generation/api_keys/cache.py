"""The per-process cache of API keys: each is looked up once, and remembered for half a minute."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from generation.api_keys import tokens
from generation.conf import parse_targets
from generation.errors import DatabaseUnavailable, Unauthorized
from generation.records import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.database.engine import Database
    from generation.store.api_keys import ApiKeys, StoredKey

logger = logging.getLogger(__name__)

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
        *,
        kept_s: float = KEPT_S,
        refresh_s: float = REFRESH_S,
        size: int = SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._stored = stored
        self._pepper = pepper
        self._refresh_s = refresh_s
        self._clock = clock
        # Apart, so that guesses push out no key that is in use.
        self._known = RecentKeys(kept_s, size, clock)
        self._unknown = RecentKeys(kept_s, size, clock)
        self._lookups: dict[str, asyncio.Future[StoredKey | None]] = {}
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
        """Returns the key from memory, else from the database; refreshes an ageing one."""
        for recent in (self._known, self._unknown):
            found = recent.get(prefix)
            if found is not None:
                known, age_s = found
                if age_s > self._refresh_s and prefix not in self._lookups:
                    self._refresh(prefix)
                return known
        lookup = self._lookups.get(prefix) or self._begin_lookup(prefix)
        stored = await self._database.within(asyncio.shield(lookup))
        return _known(stored) if stored else None

    def _refresh(self, prefix: str) -> None:
        try:
            self._begin_lookup(prefix)
        except DatabaseUnavailable as error:  # the entry still answers until it is too old
            logger.debug("not refreshed: %s", error)

    def _begin_lookup(self, prefix: str) -> asyncio.Future[StoredKey | None]:
        at = self._clock()
        lookup = self._stored.find(prefix)
        self._lookups[prefix] = lookup
        lookup.add_done_callback(lambda done: self._remember(prefix, at, done))
        return lookup

    def _remember(self, prefix: str, at: float, done: asyncio.Future[StoredKey | None]) -> None:
        del self._lookups[prefix]
        if done.cancelled() or done.exception() is not None:
            return
        stored = done.result()
        if stored is None:
            self._known.forget(prefix)
            self._unknown.put(prefix, None, at)
        else:
            self._unknown.forget(prefix)
            self._known.put(prefix, _known(stored), at)


class RecentKeys:
    """Prefixes looked up within the last `kept_s` seconds, at most `size` of them."""

    def __init__(self, kept_s: float, size: int, clock: Callable[[], float]) -> None:
        self._kept_s = kept_s
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[str, tuple[Known | None, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, prefix: str) -> tuple[Known | None, float] | None:
        """Returns an entry and its age in seconds; None for one that is absent or too old."""
        entry = self._entries.get(prefix)
        if entry is None:
            return None
        known, at = entry
        age_s = self._clock() - at
        if age_s >= self._kept_s:
            del self._entries[prefix]
            return None
        return known, age_s

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
