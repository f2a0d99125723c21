"""Amounts as people write them."""

from __future__ import annotations

import re

from generation.llm.prices import NANO

_WHOLE = re.compile(r"[0-9]{1,18}")
_DOLLARS = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")


def parse_amount(text: str, unit: str) -> int:
    """'20.50' of usd → 20500000000 billionths. Raises `ValueError`, which says what to write."""
    text = text.strip()
    if unit == "usd":
        found = _DOLLARS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text} is not an amount of US dollars, e.g. 20 or 0.50")
        return int(found[1]) * NANO + int((found[2] or "").ljust(9, "0"))
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text} is not a whole number from 0 on")
    return int(text)
