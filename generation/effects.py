"""Rows of the project's own that are written with a log row: in its statement, and so its commit.

An effect is JSON, so that it can wait in a journal; it happens exactly when its log row is stored
for the first time. What it takes from the generation is filled in when the outcome is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_OTHER_BYTES = 50  # of a value that is no text
# What an effect may take from a generation: fields of its log row.
FIELDS = frozenset(
    (
        "id", "user_id", "status", "result", "blocks", "prompt", "system", "provider", "model",
        "input_tokens", "output_tokens", "total_tokens", "cost_usd", "stop_reason", "latency_ms",
        "llm_latency_ms", "error_type", "error", "created_at", "request_id",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FromGeneration:
    """Stands for a field of the generation, e.g. `FromGeneration("result")`."""

    field: str

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            known = ", ".join(sorted(FIELDS))
            raise ValueError(f"a generation has no {self.field!r}; it has {known}")


@dataclass(frozen=True, slots=True)
class Effect:
    """One row to insert, or rows to update where all columns of `where` have these values."""

    model: str  # Django's label, e.g. chat.Message
    values: Mapping[str, Any]  # by column; JSON, or FromGeneration until it is resolved
    where: Mapping[str, Any] | None = None  # None: insert
    only_if_succeeded: bool = False

    @property
    def shape(self) -> Shape:
        return Shape(self.model, tuple(sorted(self.values)), tuple(sorted(self.where or ())))


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What effects have in common that one part of a statement writes."""

    model: str
    columns: tuple[str, ...]
    where: tuple[str, ...]  # empty: insert


def resolve(effects: tuple[Effect, ...], row: Any) -> tuple[Effect, ...]:
    """Returns the effects of a `LogRow`, with its own values in them."""
    return tuple(
        replace(
            effect,
            values=_filled(effect.values, row),
            where=None if effect.where is None else _filled(effect.where, row),
        )
        for effect in effects
        if row.status == "succeeded" or not effect.only_if_succeeded
    )


def _filled(values: Mapping[str, Any], row: Any) -> dict[str, Any]:
    return {
        column: getattr(row, value.field) if isinstance(value, FromGeneration) else value
        for column, value in values.items()
    }


def size_of(effects: tuple[Effect, ...]) -> int:
    """Returns about how many bytes effects take."""
    return sum(
        len(value) if isinstance(value, str) else _OTHER_BYTES
        for effect in effects
        for value in (*effect.values.values(), *(effect.where or {}).values())
    )
