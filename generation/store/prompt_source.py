"""STACCATO["PROMPT_SOURCE"]: prompts that a project keeps itself, in place of our profiles."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import Error, connections

from generation import user_keys
from generation.conf.dotted_paths import load_class
from generation.connections.held import open_ledger
from generation.database.batching import MIB, Batcher, Bounds
from generation.errors import DatabaseUnavailable, UnknownUser
from generation.records import Profile

if TYPE_CHECKING:
    from generation.database.engine import Database
    from generation.records import GenerationRequest

BOUNDS = Bounds(batch_rows=500, batch_bytes=MIB, queue_rows=100_000, queue_bytes=64 * MIB)
_REQUEST_BYTES = 200


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """Who asks; the metadata may say for which of several prompts."""

    user_id: Any  # the user's primary key
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, request: GenerationRequest) -> PromptRequest:
        assert request.user_id is not None, "nobody has no prompt"
        return cls(user_keys.native(request.user_id), request.metadata)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """What a profile has: a template with `$input` and `$name`s, and what else the prompt has."""

    template: str = ""
    system: str = ""
    provider: str = ""  # '': as the settings say
    model: str = ""
    max_tokens: int | None = None
    log_content: str = ""  # what the log keeps of the texts, if less than LOG_CONTENT says


class PromptSource(Protocol):
    """Where the prompts of users are. One instance is made in each process, without arguments."""

    @abstractmethod
    async def read(self, requests: Sequence[PromptRequest]) -> Sequence[PromptTemplate | None]:
        """Returns a template for each request, in this order; None for a user who does not exist,
        or who may not generate.

        It gets all requests that have come while it last ran, 500 at most, so that one query
        serves them. It may use Django's async ORM, whose connection is given back after it, and has
        DB_POOL_TIMEOUT. A database's error, an `OSError` and too long a time become a 503; any
        other exception is a bug.
        """
        ...


def load(path: str) -> PromptSource:
    """Raises `ValueError` with the reason."""
    source: PromptSource = load_class(path, PromptSource)()
    return source


class SourcedProfiles:
    """Reads profiles from a source, as `Profiles` does from the database."""

    def __init__(self, database: Database, source: PromptSource, limit_s: float) -> None:
        self._database = database
        self._source = source
        self._limit_s = limit_s
        self._reads: Batcher[PromptRequest, Profile | None] = Batcher(
            "prompt", self._read_batch, BOUNDS, weigh=_weigh
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self._reads,)

    async def read(self, request: GenerationRequest) -> Profile:
        """Raises `UnknownUser`, or `DatabaseUnavailable` within DB_POOL_TIMEOUT of the request's
        arrival."""
        submitted = self._reads.submit(PromptRequest.of(request))
        profile = await self._database.within(submitted, since=request.started)
        if profile is None:
            raise UnknownUser(f"user {request.user_id} does not exist or has no prompt")
        return profile

    async def _read_batch(self, requests: Sequence[PromptRequest]) -> list[Profile | None]:
        try:
            async with asyncio.timeout(self._limit_s), ThreadSensitiveContext():
                return await _read_and_give_back(self._source, requests)
        except (Error, OSError) as error:  # a TimeoutError is an OSError
            raise DatabaseUnavailable(
                f"the prompts can't be read: {type(error).__name__}"
            ) from error


async def _read_and_give_back(
    source: PromptSource, requests: Sequence[PromptRequest]
) -> list[Profile | None]:
    """The source's ORM calls run in a thread of this block's own, with connections of its own."""
    ledger, close_ledger = open_ledger()
    try:
        return await read(source, requests)
    finally:
        close_ledger()
        if ledger.opened:
            await sync_to_async(connections.close_all)()


async def read(source: PromptSource, requests: Sequence[PromptRequest]) -> list[Profile | None]:
    """Raises `TypeError` for what is no answer."""
    found = list(await source.read(requests))
    if len(found) != len(requests):
        raise TypeError(f"the prompt source returned {len(found)} for {len(requests)} requests")
    return [_to_profile(*pair) for pair in zip(requests, found, strict=True)]


def _to_profile(request: PromptRequest, found: PromptTemplate | None) -> Profile | None:
    if found is None:
        return None
    if not isinstance(found, PromptTemplate):
        raise TypeError(f"the prompt source returned {type(found).__name__}, not a PromptTemplate")
    return Profile(
        user_keys.key_of(request.user_id),
        found.template,
        found.system,
        found.provider,
        found.model,
        found.max_tokens,
        found.log_content,
    )


def _weigh(request: PromptRequest) -> int:
    labels = (*request.metadata.keys(), *request.metadata.values())
    return _REQUEST_BYTES + sum(map(len, labels))
