"""What has to be done so that the partitions are those that should be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.partitions.ddl import AHEAD
from generation.partitions.intervals import first_id, intervals, moment_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from generation.partitions.catalog import Found, Partition
    from generation.partitions.intervals import Interval


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, none of which changes what another needs."""

    make: Sequence[Interval]
    finish: Sequence[Partition]  # their detaching was cut off
    detach: Sequence[Partition]
    drop: Sequence[str]  # tables that are detached already


def plan(found: Found, kept: timedelta, *, archive_first: bool = False) -> Plan:
    """Returns the steps from what was found: partitions for the interval before now up to eight
    weeks ahead, none that is wholly older
    than `kept`. With `archive_first`, one that was not archived is left.
    """
    every, now = found.parent.every, found.now
    horizon = first_id(now - kept)
    living = [part for part in found.partitions if not part.is_pending]
    wanted = intervals(max(now - every, now - kept), now + AHEAD, every)
    return Plan(
        make=[
            interval
            for interval in wanted
            if not _is_covered(interval, living)
            and found.parent.partition(interval) not in found.strangers
        ],
        finish=[part for part in found.partitions if part.is_pending],
        detach=[
            part
            for part in living
            if part.start < part.end <= horizon and (part.is_archived or not archive_first)
        ],
        drop=found.detached,
    )


def _is_covered(interval: Interval, partitions: Sequence[Partition]) -> bool:
    """Whether some of its ids have a partition already; PostgreSQL allows no overlap."""
    first, end = interval.first_id, interval.end_id
    return any(part.start < end and first < part.end for part in partitions)


def covered_until(found: Found) -> datetime:
    """Returns up to when rows made from now on have a partition; now, if they have none."""
    at: UUID = first_id(found.now)
    for part in sorted(found.partitions, key=lambda part: part.start):
        if not part.is_pending and part.start <= at < part.end:
            at = part.end
    return max(found.now, moment_of(at))
