"""Whom a driver calls, and what all drivers need."""

from __future__ import annotations

import json
from typing import Any

URL = MODEL = ""  # set by run.py before a driver is read
KEY = "sk-test"
PIXEL = (  # a PNG
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def describe(error: BaseException) -> Any:
    """The error as a program sees it; its words are the service's own."""
    status = getattr(error, "status_code", None)
    return {"error": type(error).__name__, "status": status}


def calls_of(pairs: Any) -> list[list[Any]]:
    """Name and arguments of each call."""
    return [
        [name, json.loads(given) if isinstance(given, str) else dict(given)]
        for name, given in pairs
    ]


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def clock(zone: str) -> str:
    """The time in a zone."""
    return f"noon in {zone}"
