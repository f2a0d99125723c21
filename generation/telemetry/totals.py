"""The Prometheus metrics of several processes as those of one. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Families = list[dict[str, Any]]  # as `gather()` makes them; sent between processes as JSON

PROCESS_UP = "staccato_process_up"
# These only grow, so their sum is what a single process would have counted.
_CUMULATIVE = {"counter", "histogram", "summary"}


def gather() -> Families:
    """Returns the metrics of this process."""
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
    """Returns the sums of counters and histograms, without gauges."""
    return _merge((None, part) for part in parts)


def merge_metrics(living: Mapping[int, Families], retired: Families) -> Families:
    """Returns counters and histograms summed; gauges apart, with the label `process`.

    Counts of retired processes stay in the sum: Prometheus takes a falling counter for a
    restart, and would count what remains as an increase.
    """
    return _merge([*living.items(), (None, retired)])


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


def expose(reporter: int, answers: Mapping[int, Families | None], retired: Families) -> bytes:
    """Returns Prometheus' text format. `retired` has the counts of processes that don't answer."""
    living = {process: families for process, families in answers.items() if families is not None}
    merged = merge_metrics(living, retired)
    for family in merged:
        if family["name"] == PROCESS_UP:
            family["samples"] += [
                (PROCESS_UP, {"process": str(process)}, 0.0) for process in answers.keys() - living
            ]
    return b"# Reported by process %d.\n" % reporter + generate_latest(_Exposed(merged))
