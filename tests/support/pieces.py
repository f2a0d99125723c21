"""Answers in any pieces and any order, and what is the same about them however they are cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from hypothesis import strategies as st

from generation.events import (
    PIECE_CHARS,
    PIECES,
    Event,
    Extra,
    TextDelta,
    ThinkingDelta,
    ToolArguments,
    ToolEnd,
    ToolStart,
)

_TEXTS = st.sampled_from(["", "a", " word", "é🙂", "x" * (PIECE_CHARS - 1), "y" * PIECE_CHARS])
_THINKING = st.builds(ThinkingDelta, _TEXTS, st.sampled_from(["", "", "signed"]), st.booleans())
_OTHERS = st.sampled_from([ToolStart("call_1", "look"), ToolEnd(), Extra({"logprobs": 1})])
_RUNS = st.one_of(
    st.lists(st.builds(TextDelta, _TEXTS), max_size=40),
    st.lists(st.builds(ThinkingDelta, _TEXTS), max_size=40),
    st.lists(st.builds(ToolArguments, _TEXTS), max_size=40),
    st.lists(_THINKING, max_size=5),
    st.lists(_OTHERS, max_size=3),
)
ANSWERS = st.lists(_RUNS, max_size=8).map(lambda runs: [*chain(*runs)])


def spelled(events: Iterable[Event]) -> list[object]:
    """Returns the answer character by character; what is no plain text as it is."""
    found: list[object] = []
    for event in events:
        if isinstance(event, PIECES) and event == type(event)(event.text):
            found += [(type(event), character) for character in event.text]
        else:
            found.append(event)
    return found
