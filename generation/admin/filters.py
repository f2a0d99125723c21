"""The filters beside the list of logs: what is set, and values with how often they occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.admin import columns
from generation.log_search.counts import DIMENSIONS, Counts, count
from generation.log_search.selection import DATES, FLAGS, PARAMETERS, label
from generation.models import GenerationLog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.http import QueryDict

    from generation.admin.log_list import LogList
    from generation.log_search.selection import Selection

# Beside a field; more are offered while somebody types.
VALUES = 6
OFFERED = 50
NAMES = {"status": "Status", "provider": "Provider", "model": "Model", "error_type": "Error"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a filter, with the address of the list that has it."""

    text: str
    url: str
    count: str = ""
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Facet:
    """A filter whose values are known."""

    name: str
    title: str
    value: str
    choices: Sequence[Choice]
    offered: Sequence[str] = ()  # while somebody types


@dataclass(frozen=True, slots=True)
class Panel:
    """All that the list's template needs to show the filters."""

    facets: Sequence[Facet]
    values: Mapping[str, str]  # of the address, as they were entered
    chosen: Sequence[Choice]  # what is set, each with the address of the list without it
    counted: str  # the time that the counts are of
    total: str  # how many there are in that time; '': not known


def is_cluttered(query: QueryDict) -> bool:
    """Whether an address has parameters that say nothing: a form sends its empty fields, too."""
    return any(name in PARAMETERS and not query[name] for name in query)


def tidied(query: QueryDict) -> str:
    """Returns the query without them, so that an address that is kept or sent is a short one."""
    kept = query.copy()
    for name in [name for name in kept if name in PARAMETERS and not kept[name]]:
        del kept[name]
    return kept.urlencode()


def panel(logs: LogList) -> Panel:
    """Returns the filters of a page of the list."""
    found = count(logs.asked)
    return Panel(
        facets=[_facet(logs, name, found) for name in DIMENSIONS],
        values={name: str(value) for name, value in logs.params.items()},
        chosen=_chosen(logs),
        counted=found.period,
        total="" if found.total is None else f"{found.total:,}",
    )


def _facet(logs: LogList, name: str, found: Counts) -> Facet:
    chosen = getattr(logs.asked, name)
    counts = found.by.get(name, {})
    values = list(counts)
    if name == "status":
        values = list(GenerationLog.Status.values)
    shown = values[:VALUES]
    if chosen and chosen not in shown:
        shown = [chosen, *shown[: VALUES - 1]]
    words = dict(GenerationLog.Status.choices) if name == "status" else {}
    return Facet(
        name=name,
        title=NAMES[name],
        value=chosen,
        choices=[
            Choice(
                text=str(words.get(value, value)),
                url=logs.get_query_string({name: None if value == chosen else value}),
                count=f"{counts.get(value, 0):,}" if found.is_known else "",
                is_chosen=value == chosen,
            )
            for value in shown
        ],
        offered=() if name == "status" else values[:OFFERED],
    )


def in_words(asked: Selection) -> dict[str, str]:
    """Returns what is asked for, by the selection's fields."""
    texts = {
        name: f"{label(name)}: {getattr(asked, name)}"
        for name in ("q", "user", "api_key", *DIMENSIONS, "http_status", "stop_reason", "words")
        if getattr(asked, name)
    }
    if asked.cost_min:
        texts["cost_min"] = f"cost ≥ ${asked.cost_min}"
    if asked.latency_min:
        texts["latency_min"] = f"latency ≥ {asked.latency_min} s"
    if asked.tokens_min:
        texts["tokens_min"] = f"tokens ≥ {asked.tokens_min:,}"
    texts |= {name: label(name) for name in FLAGS if getattr(asked, name)}
    if asked.since:
        texts["since"] = f"from {columns.minute(asked.since)}"
    if asked.until:
        texts["until"] = f"to {columns.minute(asked.until)}"
    return texts


def _chosen(logs: LogList) -> list[Choice]:
    dates = {"since": DATES[:2], "until": DATES[2:]}
    return [
        Choice(text, logs.get_query_string(dict.fromkeys(dates.get(name, [name]))))
        for name, text in in_words(logs.asked).items()
    ]
