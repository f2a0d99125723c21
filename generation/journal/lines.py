"""A record as a line: CRC-32 in hex, a space, JSON. Rows to JSON and back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zlib import crc32

import orjson

from generation.effects import Effect
from generation.records import Attempt, Claim, KeyedRow, KeyRef, LogRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

VERSION = 2
WITH_EFFECTS = 3  # an older version would store the row without its effects
VERSIONS = (VERSION, WITH_EFFECTS)
_CRC_DIGITS = 8
_CLAIM = b'"claim":{'


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file; `record` is None where the line is torn or damaged."""

    record: dict[str, Any] | None
    end: int  # offset of the next line


def encode(record: dict[str, Any]) -> bytes:
    payload = orjson.dumps(record, default=str)
    return b"%08x %s\n" % (crc32(payload), payload)


def decode(line: bytes) -> dict[str, Any] | None:
    """Returns the record of a line without its newline; None where the line is damaged."""
    digits, space, payload = line[:_CRC_DIGITS], line[_CRC_DIGITS : _CRC_DIGITS + 1], line[9:]
    try:
        if space != b" " or int(digits, 16) != crc32(payload):
            return None
        record = orjson.loads(payload)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read(data: mmap | bytes, start: int = 0) -> Iterator[Line]:
    """Yields the lines from an offset on, up to the NUL bytes or the end."""
    while start < len(data) and data[start] != 0:
        end = data.find(b"\n", start)
        if end < 0:  # torn before its newline
            zero = data.find(b"\0", start)
            yield Line(None, zero if zero >= 0 else len(data))
            return
        yield Line(decode(data[start:end]), end + 1)
        start = end + 1


def keys_in(data: mmap | bytes) -> set[KeyRef]:
    """Returns the idempotency keys of the rows. Decodes only the claims, which are short."""
    found, start = set(), 0
    while start < len(data) and data[start] != 0:
        end = data.find(b"\n", start)
        if end < 0:
            break
        at = data.rfind(_CLAIM, start, end)  # in a text, its quotes would be escaped
        start = end + 1
        if at < 0:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):
            claim = orjson.loads(data[at + len(_CLAIM) - 1 : end - 1])
            found.add(KeyRef(claim["user_id"], claim["key"]))
    return found


def from_row(keyed: KeyedRow) -> dict[str, Any]:
    """The claim comes last, where `keys_in` finds it."""
    if keyed.effects:
        return {
            "v": WITH_EFFECTS, "row": keyed.row, "effects": keyed.effects, "claim": keyed.claim,
        }  # fmt: skip
    return {"v": VERSION, "row": keyed.row, "claim": keyed.claim}


def to_row(record: dict[str, Any]) -> KeyedRow | None:
    """Returns None for a record of another version, or of another kind."""
    if record.get("v") not in VERSIONS or "row" not in record:
        return None
    values = dict(record["row"])
    values["id"] = UUID(values["id"])
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    values["attempts"] = tuple(Attempt(**attempt) for attempt in values["attempts"])
    if values["cost_usd"] is not None:
        values["cost_usd"] = Decimal(values["cost_usd"])
    if values.get("replay_of") is not None:
        values["replay_of"] = UUID(values["replay_of"])
    if values.get("charges") is not None:
        values["charges"] = tuple(values["charges"])
    claim = record["claim"]
    if claim is not None:
        claim = Claim(**{**claim, "token": UUID(claim["token"])})
    effects = tuple(Effect(**effect) for effect in record.get("effects", ()))
    return KeyedRow(LogRow(**values), claim, effects)
