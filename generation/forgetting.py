"""Forgets a user: what they wrote, and what was answered, goes; what it cost stays.

The tombstone comes first. From then on, rows of the user are stored without texts: those in flight,
in a journal of any host, and among the dead letters; also those of operators who have sent a prompt
of the user's again.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import connections, transaction

from generation.journal.erasing import HostFiles
from generation.models import (
    ApiKey,
    Deployment,
    ForgottenUser,
    GenerationBody,
    GenerationLog,
    IdempotencyKey,
)
from generation.partitions.intervals import ZERO_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.db.models import QuerySet

    from generation.records import UserKey

BATCH_ROWS = 1000  # in one statement
WAIT_S = 30.0
POLL_S = 0.1

_INSERTIONS = """
SELECT virtualtransaction FROM pg_locks
WHERE relation = %s::regclass AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class Left:
    """What there is of a user, by place."""

    texts: int
    callers_words: int  # log rows with a request id, trace id or metadata
    idempotency_keys: int
    api_keys: int  # that are the user's alone
    waiting_rows: int  # in this host's journals
    refused_rows: int

    def __bool__(self) -> bool:
        return any(asdict(self).values())


class Forgetting:
    """Each step may be cut off and repeated."""

    def __init__(self, user_id: UserKey, *, alias: str, folder: Path) -> None:
        self._user_id = user_id
        self._alias = alias
        self._files = HostFiles(folder, _identity(alias))

    def count(self) -> Left:
        texts = words = 0
        for keys in self._log_ids():
            texts += self._bodies(keys).count()
            words += self._wordy(keys).count()
        files = self._files.count(self._user_id)
        return Left(
            texts,
            words,
            idempotency_keys=self._idempotency_keys().count(),
            api_keys=self._api_keys().count(),
            waiting_rows=files.waiting,
            refused_rows=files.refused,
        )

    def mark(self) -> None:
        """From now on the user's texts are not stored. Raises `TimeoutError` if an insertion that
        began before has not ended in time."""
        ForgottenUser.objects.using(self._alias).get_or_create(user_id=self._user_id)
        before = self._insertions()
        deadline = time.monotonic() + WAIT_S
        while before & self._insertions():
            if time.monotonic() > deadline:
                raise TimeoutError("an insertion into the log has not ended; run this again")
            time.sleep(POLL_S)

    def erase(self) -> None:
        """Raises `OSError` if a file can't be rewritten. A living process of this host stores the
        rows of its journal by itself; this waits for it, but not for long."""
        self._api_keys().delete()
        while self._delete_some_keys():
            pass
        for log_ids in self._log_ids():
            self._bodies(log_ids).delete()
            self._wordy(log_ids).update(request_id="", trace_id="", metadata={})
        deadline = time.monotonic() + WAIT_S
        self._files.erase(self._user_id)
        while any(self._files.count(self._user_id)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self._files.erase(self._user_id)

    def _delete_some_keys(self) -> int:
        """Leaves out those that a request holds at the moment, rather than wait across them."""
        keys = self._idempotency_keys()
        with transaction.atomic(using=self._alias):
            free = keys.select_for_update(skip_locked=True).values_list("pk", flat=True)
            return keys.filter(pk__in=list(free[:BATCH_ROWS])).delete()[0]

    def _log_ids(self) -> Iterator[list[UUID]]:
        """Yields the user's log rows in batches, by the index that has them."""
        logs = GenerationLog.objects.using(self._alias).filter(user_id=self._user_id)
        after = ZERO_ID
        while keys := list(
            logs.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:BATCH_ROWS]
        ):
            yield keys
            after = keys[-1]

    def _bodies(self, log_ids: list[UUID]) -> QuerySet[GenerationBody]:
        """Those of replays too, whose rows are the operators' and whose texts are the user's."""
        logs = GenerationLog.objects.using(self._alias)
        replays = logs.filter(replay_of__isnull=False, replay_of__in=log_ids)
        keys = [*log_ids, *replays.values_list("pk", flat=True)]
        return GenerationBody.objects.using(self._alias).filter(pk__in=keys)

    def _wordy(self, log_ids: list[UUID]) -> QuerySet[GenerationLog]:
        logs = GenerationLog.objects.using(self._alias).filter(pk__in=log_ids)
        return logs.exclude(request_id="", trace_id="", metadata={})

    def _idempotency_keys(self) -> QuerySet[IdempotencyKey]:
        return IdempotencyKey.objects.using(self._alias).filter(user_id=self._user_id)

    def _api_keys(self) -> QuerySet[ApiKey]:
        keys = ApiKey.objects.using(self._alias)
        return keys.filter(scope=ApiKey.Scope.USER, user_id=self._user_id)

    def _insertions(self) -> set[str]:
        """Returns the transactions that insert texts now. A lock is held before a statement looks
        at the tombstones, so one that is not among these has seen ours, or has ended."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(_INSERTIONS, [GenerationBody._meta.db_table])
            return {row[0] for row in cursor.fetchall()}


def _identity(alias: str) -> str:
    """Returns what journals call this database."""
    deployment = Deployment.objects.using(alias).first()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT current_database()")
        (name,) = cursor.fetchone()
    # Without a deployment, no service has ever used it, and no journal has its name.
    return f"{deployment.identity if deployment else 'unused'}-{name}"
