"""Two days of all kinds of rows."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync

from generation.log_search import guide
from generation.models import GenerationLog
from tests.support.admin import make_log, save
from tests.support.rollups import catch_up

MODELS = ["common"] * 40 + ["rare"]
ERRORS = {"failed": "llm-refused", "timed_out": "llm-timed-out"}


@pytest.fixture
def logs(committed) -> list[GenerationLog]:
    """Newest first; the ids follow the arrivals by more and less."""
    draw = random.Random(7)  # to be repeated
    rows = []
    for _ in range(400):
        status = draw.choice(["succeeded"] * 20 + [*ERRORS])
        model = draw.choice(MODELS)
        rows.append(
            make_log(
                draw.random() * 2880,
                user_id=draw.choice([1, 1, 1, 2]),
                api_key_id=draw.choice([1, 1, 2, None]),
                model=model,
                provider="openai" if model == "rare" else "anthropic",
                status=status,
                error_type=ERRORS.get(status, ""),
                stop_reason=draw.choice(["end_turn", "max_tokens"]),
                cost_usd=draw.choice([None, 0.01, 2]),
                latency_ms=draw.choice([900, 2000, 2001, 60_000]),
                total_tokens=draw.choice([None, 30, 5000]),
                attempts=draw.choice([[], [{"model": "common"}], TWO, FALLBACK]),
            )
        )
    save(*rows)
    return sorted(rows, key=lambda log: log.pk, reverse=True)


TWO = [{"provider": "anthropic", "model": "common", "status": 200}] * 2
FALLBACK = [
    {"provider": "openai", "model": "other"},
    {"provider": "anthropic", "model": "common", "status": 529},
]


@pytest.fixture
def rolled(logs, monkeypatch) -> None:
    """All of them are in the rollups, which are kept although the tests' rows are old."""
    monkeypatch.setattr(guide, "KEPT", timedelta(days=10_000))
    async_to_sync(catch_up)()
