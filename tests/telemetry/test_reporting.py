"""What /metrics says of generations, by provider and model."""

from __future__ import annotations

from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from generation.telemetry import metrics
from generation.telemetry.reporting import Reporter
from tests.support.rows import a_request, make_row

OFFERED = [("anthropic", "claude-test"), ("openai", "gpt-test")]
FAMILIES = (metrics.LLM_SECONDS, metrics.LLM_TOKENS, metrics.LLM_COST, metrics.LLM_UNPRICED)


@pytest.fixture
def report():
    for family in FAMILIES:
        family.clear()
    return lambda **changes: Reporter(OFFERED).report(make_row(**changes).row, a_request())


def value(name: str, provider="anthropic", model="claude-test", **labels):
    return REGISTRY.get_sample_value(name, {"provider": provider, "model": model, **labels})


def models() -> set[tuple[str, str]]:
    return {
        (sample.labels["provider"], sample.labels["model"])
        for family in FAMILIES
        for metric in family.collect()
        for sample in metric.samples
    }


def test_a_generation_counts_its_tokens_cost_and_time(report):
    report()
    assert {
        kind: value("staccato_llm_tokens_total", type=kind)
        for kind in ("input", "output", "cache_read", "cache_write")
    } == {"input": 3, "output": 4, "cache_read": 2, "cache_write": 1}
    assert value("staccato_llm_cost_usd_total") == pytest.approx(0.000123456)
    assert value("staccato_llm_unpriced_total") == 0
    assert value("staccato_llm_seconds_count") == 1
    assert value("staccato_llm_seconds_sum") == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("changes", "unpriced"),
    [
        ({"cost_usd": None}, 1),
        ({"cost_usd": Decimal(0)}, 0),  # a price of 0 is a price
        ({"cost_usd": None, "input_tokens": None, "output_tokens": None}, 0),
    ],
)
def test_tokens_without_a_price_are_counted_and_their_lack_is_not(report, changes, unpriced):
    report(**changes)
    assert value("staccato_llm_unpriced_total") == unpriced


def test_the_model_is_the_one_that_was_asked_whatever_the_provider_calls_it(report):
    report(model="claude-test-20261128")
    assert value("staccato_llm_seconds_count") == 1


@pytest.mark.parametrize(
    ("provider", "model", "shown"),
    [
        ("openai", "gpt-test", ("openai", "gpt-test")),
        ("openai", "a model of the caller's words", ("openai", "other")),
        ("own", "gpt-9", ("own", "other")),  # of a project's own call
        ("a library", "gpt-9", ("other", "other")),
    ],
)
def test_only_what_the_settings_name_makes_a_series(report, provider, model, shown):
    report(attempts=(), provider=provider, model=model)
    assert models() == {*OFFERED, shown}
    assert value("staccato_llm_tokens_total", *shown, type="input") == 3


def test_what_is_offered_has_its_series_before_the_first_generation(report):
    Reporter(OFFERED)
    assert models() == set(OFFERED)
    assert value("staccato_llm_cost_usd_total") == 0


def test_a_bug_in_reporting_costs_nobody_an_answer(report, caplog):
    report(input_tokens=-1)  # counters don't fall
    assert "not reported because of a bug" in caplog.text
