"""Which text PostgreSQL can store: neither NUL nor a lone surrogate."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_storable(text: str) -> bool:
    return _UNSTORABLE.search(text) is None


def clean(text: str) -> str:
    """Returns the text with U+FFFD in place of what PostgreSQL can't store."""
    if text.isascii() and "\0" not in text:  # most texts; the pattern takes ninety times as long
        return text
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
