"""Phase 1's read: active users, each with a profile or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, Text, any_, bindparam, select

from generation import user_keys
from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import UnknownUser
from generation.records import Profile
from generation.store import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable

    from generation.database.engine import Database
    from generation.records import GenerationRequest, UserKey
    from generation.store.tables import Tables

BOUNDS = Bounds(batch_rows=500, batch_bytes=MIB, queue_rows=100_000, queue_bytes=64 * MIB)
_ID_BYTES = 36


class Profiles:
    """Reads profiles, many in one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statement = _select_profiles(tables.load())
        self._reads: Batcher[UserKey, Profile | None] = Batcher(
            "read", self._read_batch, BOUNDS, weigh=lambda _user_id: _ID_BYTES
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._reads,)

    async def read(self, request: GenerationRequest) -> Profile:
        """Returns an empty profile for a user who has none. Raises `UnknownUser`, or
        `DatabaseUnavailable` within DB_POOL_TIMEOUT of the request's arrival."""
        assert request.user_id is not None, "nobody has no profile"
        submitted = self._reads.submit(request.user_id)
        profile = await self._database.within(submitted, since=request.started)
        if profile is None:
            raise UnknownUser(f"user {request.user_id} does not exist or has no prompt")
        return profile

    async def _read_batch(self, user_ids: Sequence[UserKey]) -> list[Profile | None]:
        rows = await self._database.read(self._statement, {"ids": list(set(user_ids))})
        found = {row[0]: _to_profile(row) for row in rows}
        return [found.get(user_id) for user_id in user_ids]


def _to_profile(row: Sequence[Any]) -> Profile:
    if row[1] is None:  # no template, and so no profile
        return Profile(row[0], "", "", "", "", None, exists=False)
    return Profile(*row)


def _select_profiles(tables: Tables) -> Executable:
    """The active users whose keys are in the parameter `ids`, an array, with their profiles."""
    profile, user = tables.profile, tables.user
    # The widest type of its kind, so that no key is out of the driver's range.
    widest = {"integer": BigInteger(), "uuid": user.c.id.type, "text": Text()}[user_keys.kind()]
    ids = bindparam("ids", type_=ARRAY(widest))
    statement = (
        select(
            user.c.id,
            profile.c.prompt_template,
            profile.c.system,
            profile.c.provider,
            profile.c.model,
            profile.c.max_tokens,
            profile.c.log_content,
        )
        .select_from(user)
        .join(profile, profile.c.user_id == user.c.id, isouter=True)
        .where(user.c.id == any_(ids))
    )
    if tables.user_is_active is not None:
        statement = statement.where(tables.user_is_active)
    return statement
