"""The attempts of one generation over its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.charts.waterfalls import Step, Waterfall, waterfall

if TYPE_CHECKING:
    from generation.models import GenerationLog


def drawn(log: GenerationLog) -> Waterfall | None:
    """Returns when each attempt ran, from the request's arrival; None if there was none.

    Of rows of before, it is known how long attempts took, but not when they began: they are drawn
    one after the other.
    """
    attempts = [each for each in log.attempts or () if isinstance(each, dict)]
    if not attempts:
        return None
    before = max(log.latency_ms - log.llm_latency_ms, 0)
    steps = [Step("Before the LLM", 0, before, "plot-6", f"{before:,} ms")]
    at = 0
    for each in attempts:
        ms, error = _number(each.get("ms")), each.get("error")
        started = _number(each["at_ms"]) if "at_ms" in each else at
        at = started + ms
        aside = f"{ms:,} ms{f' · {error}' if error else ''}"
        name = f"{each.get('provider', '')}:{each.get('model', '')}"
        steps.append(Step(name, before + started, ms, "plot-bad" if error else "plot-1", aside))
    return waterfall(steps, log.latency_ms)


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
