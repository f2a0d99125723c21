"""A provider's reader, fed with the payloads of a stream."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

from generation.conf import parse
from generation.events import ToolArguments, ToolEnd, ToolStart
from generation.llm.providers.parsing import Decoration
from generation.llm.providers.registry import PROVIDERS
from generation.llm.transcript import Transcript


def read(dialect, *payloads, names=()):
    """Returns the transcript of a stream of these events, and what was doubtful."""
    settings = parse(dialect.settings("http://127.0.0.1:9"))
    provider: Any = PROVIDERS[dialect.name](settings, httpx.AsyncBaseTransport())
    transcript, decoration = Transcript(), Decoration(str)
    reader = provider.reader(transcript, decoration)
    for number, payload in enumerate(payloads):
        data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        reader.take(names[number] if names else "", data)
    reader.end()
    return transcript, decoration.doubtful


def assert_is_in_order(events):
    """Calls come one after the other, each with a start and an end of its own."""
    is_open = False
    for event in events:
        if isinstance(event, ToolStart):
            assert not is_open
            assert event.id
            is_open = True
        elif isinstance(event, ToolArguments):
            assert is_open
        elif isinstance(event, ToolEnd):
            assert is_open
            is_open = False
        else:
            assert not is_open
    assert not is_open
