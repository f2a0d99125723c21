"""Figures of several processes as those of one: pure, and the same for whoever adds them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Families = list[dict[str, Any]]  # as `gather()` makes them; they travel as JSON

# Ever growing, so that their sum is what one process would have counted.
_CUMULATIVE = {"counter", "histogram", "summary"}
_MAIN = (
    "size",
    "open",
    "checked_out",
    "overflow",
    "peak_checked_out",
    "requests_in_flight",
    "llm_calls_in_flight",
)


# --- the pool's page --------------------------------------------------------------------------


def add_up(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of a runtime, in their own shape.

    Peaks are summed although they need not have come at the same moment, and a quantile is that
    of the worst process: the true ones are not greater.
    """
    total: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in parts for key in part if key != "process"):
        values = [part[key] for part in parts if key in part]
        if not isinstance(values[0], dict):
            total[key] = sum(values)
        elif "mean_ms" in values[0]:
            total[key] = _add_up_durations(values)
        else:
            total[key] = add_up(values)
    return total


def _add_up_durations(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    count = sum(summary["count"] for summary in summaries)
    worst = {key: max(summary[key] for summary in summaries) for key in summaries[0]}
    total_ms = sum(summary["count"] * summary["mean_ms"] for summary in summaries)
    return {**worst, "count": count, "mean_ms": round(total_ms / count, 3) if count else 0.0}


def overview(own: Mapping[str, Any], by_process: Mapping[int, Any]) -> dict[str, Any]:
    """The page: a process's own statistics, then all processes' outlines and their sum.

    None for the statistics of a process that did not answer.
    """
    answered = [statistics for statistics in by_process.values() if statistics]
    return {
        **own,
        "processes": [
            {"process": process, "answers": bool(statistics), **_outline(statistics or {})}
            for process, statistics in by_process.items()
        ],
        "total": add_up(answered),
    }


def _outline(statistics: Mapping[str, Any]) -> dict[str, Any]:
    main = {key: statistics[key] for key in _MAIN if key in statistics}
    journal = statistics.get("journal")
    return main | ({"journal_rows": journal["rows"]} if journal else {})


# --- the metrics ------------------------------------------------------------------------------


def gather() -> Families:
    """The metrics of this process."""
    return [
        {
            "name": family.name,
            "help": family.documentation,
            "type": family.type,
            "samples": [(sample.name, sample.labels, sample.value) for sample in family.samples],
        }
        for family in REGISTRY.collect()
    ]


def sum_cumulative(parts: Iterable[Families]) -> Families:
    """Counters and histograms, summed; nothing else."""
    return _merge((None, part) for part in parts)


def merge_metrics(living: Mapping[int, Families], departed: Families) -> Families:
    """Counters and histograms summed; gauges kept apart by the label `process`.

    What the departed have counted stays in the sum: a counter that falls would be taken for a
    restart, and what is left of it for an increase.
    """
    return _merge([*living.items(), (None, departed)])


def _merge(parts: Iterable[tuple[int | None, Families]]) -> Families:
    merged: dict[str, dict[str, Any]] = {}
    for process, families in parts:
        for family in families:
            is_cumulative = family["type"] in _CUMULATIVE
            if process is None and not is_cumulative:
                continue
            samples = merged.setdefault(family["name"], {**family, "samples": {}})["samples"]
            for name, labels, value in family["samples"]:
                shown = labels if is_cumulative else {**labels, "process": str(process)}
                key = (name, *sorted(shown.items()))
                _name, _labels, before = samples.get(key, (name, shown, None))
                samples[key] = (name, shown, _combine(name, before, value))
    return [{**family, "samples": list(family["samples"].values())} for family in merged.values()]


def _combine(name: str, before: float | None, value: float) -> float:
    if before is None:
        return value
    return min(before, value) if name.endswith("_created") else before + value


class _Exposed(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family["name"], family["help"], family["type"])
            for name, labels, value in family["samples"]:
                metric.add_sample(name, labels, value)
            yield metric


def expose(asked: int, answers: Mapping[int, Families | None], departed: Families) -> bytes:
    """In Prometheus' text format. `departed` is what those have counted who don't answer."""
    up = {
        "name": "staccato_process_up",
        "help": "1 for a process that answers, 0 for one that should and does not.",
        "type": "gauge",
        "samples": [
            ("staccato_process_up", {"process": str(process)}, float(families is not None))
            for process, families in answers.items()
        ],
    }
    living = {process: families for process, families in answers.items() if families is not None}
    shown = _Exposed([up, *merge_metrics(living, departed)])
    return b"# Told by process %d.\n" % asked + generate_latest(shown)
