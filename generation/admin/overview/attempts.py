"""The attempts of one generation over its time."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from generation.charts.waterfalls import Step, Waterfall, waterfall
from generation.records import Attempt

if TYPE_CHECKING:
    from generation.models import GenerationLog

_KNOWN = {field.name for field in fields(Attempt)}


def drawn(log: GenerationLog) -> Waterfall | None:
    """Returns when each attempt ran, from the request's arrival, and what came of it; None if there
    was none.

    Of rows of before, it is known how long attempts took, but not when they began: they are drawn
    one after the other.
    """
    attempts = [each for each in log.attempts or () if isinstance(each, dict)]
    if not attempts:
        return None
    before = max(log.latency_ms - log.llm_latency_ms, 0)
    steps = [Step("Before the LLM", 0, before, "plot-6", f"{before:,} ms")]
    at = before
    for each in attempts:
        ms = _number(each.get("ms"))
        started = before + _number(each["at_ms"]) if "at_ms" in each else at
        at = started + ms
        colour = "plot-bad" if each.get("error") else "plot-1"
        name = f"{each.get('provider', '')}:{each.get('model', '')}"
        steps.append(Step(name, started, ms, colour, _said(each, started, ms)))
    return waterfall(steps, log.latency_ms)


def _said(attempt: dict[str, Any], started: int, ms: int) -> str:
    begun = f", begun at {started:,} ms" if "at_ms" in attempt else ""
    status, error = attempt.get("status"), attempt.get("error")
    facts = [f"{ms:,} ms{begun}", f"HTTP {status}" if status else "no HTTP status"]
    facts += [str(error)] if error else []
    # What a project's own code has added.
    facts += [f"{key} {value}" for key, value in attempt.items() if key not in _KNOWN and value]
    return " · ".join(facts)


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
