"""Which words of two texts differ."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 3000  # of a text; two of them take 0.3 s at worst, and what follows is not compared
_WORD = re.compile(r"\s*\S+|\s+\Z")


class Span(NamedTuple):
    text: str
    differs: bool


def compare(first: str, second: str) -> tuple[list[Span], list[Span], bool]:
    """Returns the spans of each text, and whether all of both was compared. Joined, the spans are
    the text."""
    left, right = _WORD.findall(first), _WORD.findall(second)
    rest = "".join(left[MOST_WORDS:]), "".join(right[MOST_WORDS:])
    left, right = left[:MOST_WORDS], right[:MOST_WORDS]
    matcher = SequenceMatcher(None, [*map(str.strip, left)], [*map(str.strip, right)])
    spans: tuple[list[Span], list[Span]] = ([], [])
    for tag, i, j, k, m in matcher.get_opcodes():
        for side, words in zip(spans, (left[i:j], right[k:m]), strict=True):
            if words:
                side.append(Span("".join(words), tag != "equal"))
    for side, words_left in zip(spans, rest, strict=True):
        if words_left:
            side.append(Span(words_left, differs=False))
    return *spans, not any(rest)
