"""A connection that the provider closes just when it is used again."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from generation.llm.transport import Transport
from generation.telemetry import metrics
from tests.support.provider import resets, says, sends, waits_for
from tests.support.transport import OK, post, serving
from tests.support.waiting import HANG_S


async def used_once(peer, transport):
    """Leaves one idle connection."""
    await post(transport, peer.url)
    assert peer.accepted == peer.connected == 1


@pytest.mark.parametrize("behaviour", [resets, sends(b"")], ids=["reset", "closed"])
@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_a_stale_connection_is_replaced_by_a_fresh_one(peer, transport, behaviour, size):
    await used_once(peer, transport)
    peer.script = [behaviour]
    response, body = await post(transport, peer.url, content=b"x" * size)
    assert (response.status_code, body) == (200, b"ok")
    assert (peer.calls, peer.accepted) == (3, 2)
    assert len(peer.requests[2].body) == size


async def test_a_stale_connection_is_replaced_under_tls_as_well(authority):
    async with serving(authority) as server, Transport(connect_timeout=HANG_S) as transport:
        for behaviour in (resets, sends(b"")):
            await post(transport, server.url)
            server.script = [behaviour]
            response, _ = await post(transport, server.url)
            assert response.status_code == 200
        assert server.calls == 6


async def test_a_stale_connection_is_replaced_once(peer, transport):
    await used_once(peer, transport)
    peer.behave = resets
    with pytest.raises(httpx.TransportError):
        await post(transport, peer.url)
    assert peer.calls == 3, "one call, one repetition on a fresh connection, and no more"
    with pytest.raises(httpx.TransportError):
        await post(transport, peer.url)
    assert peer.calls == 4, "nothing was idle: a reset of a fresh connection is a failure"


async def test_a_reset_of_a_fresh_connection_is_not_repeated(peer, transport):
    peer.behave = resets
    with pytest.raises(httpx.TransportError):
        await post(transport, peer.url)
    assert peer.calls == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(b"NOT HTTP\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
    ],
    ids=["garbage", "cut body"],
)
async def test_a_reply_that_has_begun_is_not_asked_for_again(peer, transport, behaviour):
    await used_once(peer, transport)
    peer.script = [behaviour]
    with pytest.raises(httpx.TransportError):
        await post(transport, peer.url)
    assert peer.calls == 2, "the provider has worked on the prompt, and may charge for it"


async def test_a_connection_closed_after_a_while_is_not_stale(peer, transport, monkeypatch):
    monkeypatch.setattr("generation.llm.transport.idle.STALE_WITHIN_S", 0.05)

    async def works_then_breaks_off(exchange):
        await asyncio.sleep(0.2)
        exchange.reset()

    await used_once(peer, transport)
    peer.script = [works_then_breaks_off]
    with pytest.raises(httpx.TransportError):
        await post(transport, peer.url)
    assert peer.calls == 2


async def test_when_all_idle_connections_are_stale_every_call_still_succeeds(peer, transport):
    everyone_is_here = asyncio.Event()
    peer.behave = waits_for(everyone_is_here, OK)
    first = [asyncio.create_task(post(transport, peer.url)) for _ in range(50)]
    await peer.until(lambda: peer.waiting == 50, "the arrival of all")
    everyone_is_here.set()
    await asyncio.gather(*first)
    assert peer.connected == 50
    peer.behave, peer.script = OK, [resets] * 50
    second = await asyncio.gather(*(post(transport, peer.url) for _ in range(50)))
    assert {response.status_code for response, _ in second} == {200}
    assert peer.calls == 150


async def test_a_stale_connection_is_counted_and_is_no_attempt(dialect, server, client, prompt):
    """No retry, no outage signal, and nothing taken from the retry budget."""
    server.behave = says(200, dialect.answer())
    stale = metrics.LLM_STALE_CONNECTIONS._value.get()
    async with client(LLM_MAX_ATTEMPTS=1) as llm:
        for _ in range(30):  # three times the budget of a quiet service
            await llm.complete(prompt)
            server.script = [resets]
            outcome = await llm.complete(prompt)
            assert outcome.reply is not None, outcome.error
            assert [attempt.status for attempt in outcome.attempts] == [200]
    assert metrics.LLM_STALE_CONNECTIONS._value.get() == stale + 30
    assert server.calls == 90
