"""Server-sent events as a client reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    kind: str
    data: Any
    id: str


def parse(raw: bytes) -> list[Event]:
    """Whole events; a comment is passed over. Fails at what a strict reader would not take."""
    *blocks, rest = raw.split(b"\n\n")
    assert not rest, f"the last event has no end: {rest!r}"
    return [_parse(block) for block in blocks]


def _parse(block: bytes) -> Event:
    fields = {}
    for line in block.decode().split("\n"):
        name, colon, value = line.partition(": ")
        assert colon, f"a line without a field: {line!r}"
        assert name not in fields, f"{name} comes twice in {block!r}"
        if name:
            fields[name] = value
    assert set(fields) == {"id", "event", "data"}, block
    return Event(fields["event"], json.loads(fields["data"]), fields["id"])
