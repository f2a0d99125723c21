"""The charts' style, for a page that loads nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FILE = Path(__file__).parents[1] / "static" / "generation" / "charts.css"


@cache
def stylesheet() -> str:
    return _FILE.read_text()
