"""Which words of two texts differ."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 2000  # of a text; what follows is not compared
# The share of equal words below which marks would be all that one sees.
ALIKE = 0.2
LONG = "The answers are long: only their beginnings were compared."
UNLIKE = "The answers have hardly a word in common, so none is marked."
_WORD = re.compile(r"\s*\S+|\s+\Z")


class Span(NamedTuple):
    text: str
    differs: bool


def compare(first: str, second: str) -> tuple[list[Span], list[Span], str]:
    """Returns the spans of each text, which are the text if they are joined, and a sentence on what
    the marks leave out."""
    left, right = _WORD.findall(first), _WORD.findall(second)
    rest = "".join(left[MOST_WORDS:]), "".join(right[MOST_WORDS:])
    left, right = left[:MOST_WORDS], right[:MOST_WORDS]
    matcher = SequenceMatcher(None, [*map(str.strip, left)], [*map(str.strip, right)])
    if matcher.ratio() < ALIKE:
        return _plain(first), _plain(second), UNLIKE if first and second else ""
    spans: tuple[list[Span], list[Span]] = ([], [])
    for tag, i, j, k, m in matcher.get_opcodes():
        for side, words in zip(spans, (left[i:j], right[k:m]), strict=True):
            if words:
                side.append(Span("".join(words), tag != "equal"))
    for side, words_left in zip(spans, rest, strict=True):
        if words_left:
            side.append(Span(words_left, differs=False))
    return spans[0], spans[1], LONG if any(rest) else ""


def _plain(text: str) -> list[Span]:
    return [Span(text, differs=False)] if text else []
