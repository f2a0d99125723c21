"""What is reported of a generation once its row is safe, so that nothing of it is on the way to the
commit."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from generation.telemetry import logs, metrics

if TYPE_CHECKING:
    from collections.abc import Collection

    from generation.records import GenerationRequest, LogRow
    from generation.telemetry.span_export import SpanExport

logger = logging.getLogger(__name__)

OWN = "own"  # the provider of calls that a project makes itself
OTHER = "other"  # a provider or model that the settings don't name


class _Series:
    """The metrics of one provider and model. The library's own lookup of labels takes longer than
    to count."""

    def __init__(self, provider: str, model: str) -> None:
        tokens = metrics.LLM_TOKENS.labels
        self._seconds = metrics.LLM_SECONDS.labels(provider, model)
        self._input = tokens(provider, model, "input")
        self._output = tokens(provider, model, "output")
        self._cache_read = tokens(provider, model, "cache_read")
        self._cache_write = tokens(provider, model, "cache_write")
        self._cost = metrics.LLM_COST.labels(provider, model)
        self._unpriced = metrics.LLM_UNPRICED.labels(provider, model)

    def count(self, row: LogRow) -> None:
        self._seconds.observe(row.llm_latency_ms / 1000)
        if row.input_tokens:
            self._input.inc(row.input_tokens)
        if row.output_tokens:
            self._output.inc(row.output_tokens)
        if row.cache_read_tokens:
            self._cache_read.inc(row.cache_read_tokens)
        if row.cache_write_tokens:
            self._cache_write.inc(row.cache_write_tokens)
        if row.cost_usd is not None:
            self._cost.inc(float(row.cost_usd))
        elif row.input_tokens or row.output_tokens:
            self._unpriced.inc()


class Reporter:
    """Reports the generations of one process."""

    def __init__(
        self, targets: Collection[tuple[str, str]], export: SpanExport | None = None
    ) -> None:
        """`targets` are the providers and models that have series of their own, from the start:
        Prometheus does not see the first increase of a series that begins with it."""
        self._providers = {OWN, *(provider for provider, _model in targets)}
        self._series = {target: _Series(*target) for target in targets}
        self._export = export
        self._other = functools.cache(_Series)

    def report(self, row: LogRow, request: GenerationRequest) -> None:
        """Call it in the generation's task. Raises nothing."""
        try:
            self._series_of(row).count(row)
            logs.log_each(row)
            if self._export:
                self._export.add(row, request)
        except Exception:  # not even a bug may cost the caller's answer
            logger.exception("a generation is not reported because of a bug")

    def _series_of(self, row: LogRow) -> _Series:
        """By the model that was asked: a provider may answer with a longer name."""
        asked = row.attempts[-1] if row.attempts else row
        series = self._series.get((asked.provider, asked.model))
        if series is None:
            known = asked.provider in self._providers
            series = self._other(asked.provider if known else OTHER, OTHER)
        return series
