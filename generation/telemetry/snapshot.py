"""The figures of one process at one moment, their sums over several, and /api/v1/pool's page.

The page's JSON, its schema and its example follow from these types. Building a snapshot sorts
the recent durations, so it is done when somebody asks and never on a request's path.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """Figures that can be summed. One that another version of the service lacks counts as zero."""

    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True)

    def __add__(self, other: Self) -> Self:
        """Returns the sum of each figure.

        Peaks are summed too, although they may not have been reached at the same moment: the
        true peak is not greater.
        """
        return type(self)(
            **{
                figure.name: getattr(self, figure.name) + getattr(other, figure.name)
                for figure in fields(self)
            }
        )


@dataclass(frozen=True, kw_only=True)
class DurationSummary(_Figures):
    """Durations in milliseconds: mean and maximum since start, percentiles of recent ones."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    def __add__(self, other: DurationSummary) -> DurationSummary:
        """Returns the true count and mean; a percentile is the worse process's, an upper bound."""
        count = self.count + other.count
        total_ms = self.count * self.mean_ms + other.count * other.mean_ms
        return DurationSummary(
            count=count,
            mean_ms=total_ms / count if count else 0.0,
            p50_ms=max(self.p50_ms, other.p50_ms),
            p95_ms=max(self.p95_ms, other.p95_ms),
            p99_ms=max(self.p99_ms, other.p99_ms),
            max_ms=max(self.max_ms, other.max_ms),
        )


@dataclass(frozen=True, kw_only=True)
class PoolSnapshot(_Figures):
    """A pool's connections now, their peaks, and how long they were waited for and held."""

    size: int = 0
    max_overflow: int = 0
    open: int = 0
    checked_out: int = 0
    checked_in: int = 0
    overflow: int = 0
    peak_open: int = 0
    peak_checked_out: int = 0
    waits: DurationSummary = field(default_factory=DurationSummary)
    holds: DurationSummary = field(default_factory=DurationSummary)


@dataclass(frozen=True, kw_only=True)
class JournalSnapshot(_Figures):
    """The rows that PostgreSQL has not stored."""

    rows: int = 0
    bytes: int = 0
    capacity_bytes: int = 0
    rows_in_memory_only: int = 0
    rows_refused: int = 0


@dataclass(frozen=True, kw_only=True)
class Snapshot(PoolSnapshot):
    """All figures of a process, or their sum over several. Flat, as the page is."""

    requests_in_flight: int = 0
    peak_requests_in_flight: int = 0
    max_requests_in_flight: int = 0
    requests_abandoned: int = 0
    requests_answered: DurationSummary = field(default_factory=DurationSummary)
    overhead: DurationSummary = field(default_factory=DurationSummary)
    llm_calls_in_flight: int = 0
    open_circuits: tuple[str, ...] = ()  # the providers that are not called, since they fail
    draining: int = 0  # processes that admit no more generations
    journal: JournalSnapshot = field(default_factory=JournalSnapshot)

    def __add__(self, other: Self) -> Self:
        circuits = tuple(sorted({*self.open_circuits, *other.open_circuits}))
        return replace(super().__add__(other), open_circuits=circuits)

    @classmethod
    def parse(cls, json: bytes) -> Self:
        """Raises `ValueError` if the JSON is something else."""
        return cls._adapter().validate_json(json)

    @classmethod
    @cache
    def _adapter(cls) -> TypeAdapter[Self]:
        return TypeAdapter(cls)


@dataclass(frozen=True, kw_only=True)
class ProcessOutline:
    """The main figures of a process that answers."""

    process: int
    answers: Literal[True] = True
    size: int
    open: int
    checked_out: int
    overflow: int
    peak_checked_out: int
    requests_in_flight: int
    llm_calls_in_flight: int
    journal_rows: int
    # Later than the others: `loadtest` also reads the page of a service that lacks them.
    max_overflow: int = 0
    peak_requests_in_flight: int = 0
    max_requests_in_flight: int = 0
    journal_rows_in_memory_only: int = 0
    open_circuits: tuple[str, ...] = ()
    draining: bool = False

    __pydantic_config__ = _Figures.__pydantic_config__

    @classmethod
    def of(cls, process: int, snapshot: Snapshot) -> ProcessOutline:
        return cls(
            process=process,
            size=snapshot.size,
            open=snapshot.open,
            checked_out=snapshot.checked_out,
            overflow=snapshot.overflow,
            peak_checked_out=snapshot.peak_checked_out,
            requests_in_flight=snapshot.requests_in_flight,
            llm_calls_in_flight=snapshot.llm_calls_in_flight,
            journal_rows=snapshot.journal.rows,
            max_overflow=snapshot.max_overflow,
            peak_requests_in_flight=snapshot.peak_requests_in_flight,
            max_requests_in_flight=snapshot.max_requests_in_flight,
            journal_rows_in_memory_only=snapshot.journal.rows_in_memory_only,
            open_circuits=snapshot.open_circuits,
            draining=snapshot.draining > 0,
        )


@dataclass(frozen=True, kw_only=True)
class SilentProcess:
    """A process that should answer, and does not in time."""

    process: int
    answers: Literal[False] = False

    __pydantic_config__ = _Figures.__pydantic_config__


@dataclass(frozen=True, kw_only=True)
class _Named:
    process: int


@dataclass(frozen=True, kw_only=True)
class PoolPage(Snapshot, _Named):
    """/api/v1/pool: the process that answers, then all processes' outlines and their sum."""

    processes: tuple[ProcessOutline | SilentProcess, ...]
    total: Snapshot

    @classmethod
    def of(cls, process: int, snapshots: Mapping[int, Snapshot | None]) -> PoolPage:
        """Returns `process`'s page. None stands for a process that did not answer."""
        own = snapshots[process] or Snapshot()
        return cls(
            **vars(own),
            process=process,
            processes=tuple(
                SilentProcess(process=number)
                if snapshot is None
                else ProcessOutline.of(number, snapshot)
                for number, snapshot in snapshots.items()
            ),
            total=sum((each for each in snapshots.values() if each is not None), Snapshot()),
        )

    @property
    def answering(self) -> list[ProcessOutline]:
        return [process for process in self.processes if isinstance(process, ProcessOutline)]

    def as_json(self) -> dict[str, Any]:
        """Returns the page's content, its durations to a microsecond."""
        return asdict(self, dict_factory=_rounded)


def _rounded(figures: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures}
