"""Server-sent events, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.llm.providers.parsing import UnusableReply
from generation.llm.providers.sse import Decoder, decode

EXPECTED = [
    ("", b'{"a": "Gr\xc3\xbc\xc3\x9fe"}'),
    ("ping", b"{}"),
    ("", b"one\ntwo"),
    ("", b"[DONE]"),
]
LINES = [
    ": a comment",
    'data: {"a": "Grüße"}',
    "",
    "event: ping",
    "id: 7",
    "data:{}",
    "",
    "event: nothing",
    "",
    "retry: 5",
    "data: one",
    "data: two",
    "",
    "",
    "data: [DONE]",
]


def feed(pieces, limit=10_000):
    decoder = Decoder(limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [*events, *decoder.end()]


def cut(body, places):
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@given(
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    has_mark=st.booleans(),
    blank=st.integers(0, 2),
    places=st.lists(st.integers(0, 1000), max_size=40),
)
def test_the_events_are_the_same_however_the_bytes_are_cut(end, has_mark, blank, places):
    text = end.join(LINES) + end * blank
    body = b"\xef\xbb\xbf" * has_mark + text.encode()
    assert feed(cut(body, places)) == EXPECTED
    assert list(decode(body)) == EXPECTED


@given(body=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=20))
def test_no_bytes_are_read_in_two_ways(body, places):
    assert feed(cut(body, places)) == feed([body]) == feed(bytes([byte]) for byte in body)


@given(lines=st.lists(st.sampled_from([b"data: x", b"event: e", b":", b"", b"\r"]), max_size=12))
def test_the_quick_way_reads_what_the_slow_one_does(lines):
    body = b"\n".join(lines)
    assert feed([body]) == feed(bytes([byte]) for byte in body)


@pytest.mark.parametrize(
    "piece", [b"x", b"data: x\n", b"data: " + b"x" * 1001], ids=["line", "lines", "at once"]
)
def test_an_event_without_an_end_is_refused_early(piece):
    decoder = Decoder(1000)
    with pytest.raises(UnusableReply):
        for _ in range(1100):
            decoder.feed(piece)


def test_what_is_ignored_takes_no_memory():
    decoder = Decoder(1000)
    for _ in range(5000):
        assert decoder.feed(b": keep-alive\nid: 5\nevent: x\n") == []
    assert decoder.feed(b"data: 1\n\n") == [("x", b"1")]
