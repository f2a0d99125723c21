"""Everything that the hot path asks of PostgreSQL.

Each method borrows a connection, runs one statement, and returns; most put the requests of many
callers into one statement. Statements are built when a `Store` is, from Django's models.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from generation.privacy.encryption import KeyRing
from generation.store import prompt_source
from generation.store.api_keys import ApiKeys
from generation.store.claims import Claims
from generation.store.forgotten import forgotten_among
from generation.store.generations import Generations
from generation.store.held_results import HeldResults
from generation.store.identity import identify
from generation.store.limits import LimitTables
from generation.store.logs import Logs
from generation.store.migrations import pending_among
from generation.store.profiles import Profiles
from generation.store.prompt_source import SourcedProfiles
from generation.store.usage import UsageLogs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from generation.conf import Settings
    from generation.database.batching import Batcher
    from generation.database.engine import Database
    from generation.records import UserKey

LEASE_SLACK_S = 15.0  # beyond the longest time that a request may take


class Store:
    """One process's access to the tables."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        longest_s = settings.db_pool_timeout + settings.llm_timeout + settings.write_timeout
        self.profiles: Profiles | SourcedProfiles = Profiles(database)
        if settings.prompt_source:
            source = prompt_source.load(settings.prompt_source)
            self.profiles = SourcedProfiles(database, source, settings.db_pool_timeout)
        self.usage = UsageLogs(database, timedelta(days=settings.usage_retention_days))
        self.logs = Logs(
            database,
            self.usage,
            kept=timedelta(days=settings.log_retention_days),
            bodies_kept=timedelta(days=settings.body_days),
        )
        ring = KeyRing.of(settings)
        self.claims = Claims(database, timedelta(seconds=longest_s + LEASE_SLACK_S), ring)
        self.generations = Generations(database, ring)
        self.held_results = HeldResults(database)
        self.api_keys = ApiKeys(database)
        self.limits = LimitTables(database)

    @property
    def batchers(self) -> tuple[Batcher[Any, Any], ...]:
        parts = (self.profiles, self.logs, self.usage, self.claims, self.api_keys)
        return tuple(batcher for part in parts for batcher in part.batchers)

    async def identify(self) -> str:
        """Returns what identifies this database. Raises `DatabaseUnavailable`."""
        return await identify(self._database)

    async def forgotten_among(self, users: Collection[UserKey]) -> set[UserKey]:
        """Returns those whose texts are stored no more. Raises `DatabaseUnavailable`."""
        return await forgotten_among(self._database, users)

    async def pending_among(self, migrations: Sequence[str]) -> list[str]:
        """Returns the migrations that are not applied. Raises `DatabaseUnavailable`."""
        return await pending_among(self._database, migrations)

    async def ping(self) -> None:
        """Raises `DatabaseUnavailable` if no row could be stored now."""
        await self.logs.ping()
