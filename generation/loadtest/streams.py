"""What a caller sees of a stream: its events, when they came, and how it ended."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

CONTENT_TYPE = "text/event-stream"
TORN = "torn: it ended without done or error"
MAX_EVENT_BYTES = 64 * 1024 * 1024
STEPS_PER_S = 10_000  # of a gap: exact enough, and millions of gaps are few numbers then

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(rb"^(event|data): ?(.*?)\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tempo:
    """Of the `delta` events of some time. Gaps are in seconds."""

    events: int = 0
    per_s: float = 0.0
    gap_p50: float = 0.0
    gap_p99: float = 0.0
    longest_gap: float = 0.0


NO_STREAMS = Tempo()


class Deltas:
    """Counts the `delta` events of all streams, and the gaps between those of one stream."""

    def __init__(self) -> None:
        self._events = 0
        self._gaps: Counter[int] = Counter()
        self._recent_events = 0
        self._recent_gaps: Counter[int] = Counter()

    def add(self, gap: float | None) -> None:
        """`gap`: seconds since the one before, None for a stream's first."""
        self._recent_events += 1
        if gap is not None:
            self._recent_gaps[round(gap * STEPS_PER_S)] += 1

    def recent(self, seconds: float) -> Tempo:
        """Returns the tempo since the last call, which was so many seconds ago."""
        tempo = _tempo(self._recent_events, self._recent_gaps, seconds)
        self._events += self._recent_events
        self._gaps.update(self._recent_gaps)
        self._recent_events = 0
        self._recent_gaps.clear()
        return tempo

    def total(self, seconds: float) -> Tempo:
        self.recent(seconds)
        return _tempo(self._events, self._gaps, seconds)


def _tempo(events: int, gaps: Counter[int], seconds: float) -> Tempo:
    ordered, number = sorted(gaps), gaps.total()

    def at(share: float) -> float:
        left = share * number
        for step in ordered:
            left -= gaps[step]
            if left < 0:
                return step / STEPS_PER_S
        return ordered[-1] / STEPS_PER_S if ordered else 0.0

    per_s = events / seconds if seconds else 0.0
    return Tempo(events, per_s, at(0.50), at(0.99), at(1.0))


class Reading:
    """One stream, read from its bytes."""

    def __init__(self, deltas: Deltas, sent: float) -> None:
        """`sent`: when the request was, in seconds of the clock that `feed` is given."""
        self.first: float | None = None  # seconds from the request to the first content
        self.end = ""  # `done` or `error`, once it has come
        self.data = b""  # of that event
        self._deltas = deltas
        self._sent = self._last = sent
        self._rest = b""

    def feed(self, chunk: bytes, now: float) -> None:
        """Raises `ValueError` if an event is too large to be one."""
        *events, self._rest = _BLANK_LINE.split(self._rest + chunk)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ValueError("an event has no end")
        for event in events:
            fields = dict(_FIELD.findall(event))
            kind = fields.get(b"event")
            if kind == b"delta":
                self._take_delta(now)
            elif kind in {b"done", b"error"}:
                self.end, self.data = kind.decode(), fields.get(b"data", b"")

    def _take_delta(self, now: float) -> None:
        if self.first is None:
            self.first = now - self._sent
            self._deltas.add(None)
        else:
            self._deltas.add(now - self._last)
        self._last = now
