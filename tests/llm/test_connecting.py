"""The way to a connection: addresses, sockets, TLS, and giving up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import socket

import httpx
import pytest

from generation.llm.transport import Transport
from generation.llm.transport.addresses import Addresses
from generation.llm.transport.connection import Connection
from tests.support.provider import Provider
from tests.support.transport import OK, post, tls_of
from tests.support.waiting import HANG_S, until


@pytest.fixture
async def lookups(monkeypatch):
    """Those of `*.invalid`, which end with `answer`."""
    loop = asyncio.get_running_loop()
    find = loop.getaddrinfo

    class Lookups:
        def __init__(self):
            self.asked = []
            self.answer = loop.create_future()

        async def find(self, host, port, **options):
            if not host.endswith(".invalid"):
                return await find(host, port, **options)
            self.asked.append(host)
            return await asyncio.shield(self.answer)

    lookups = Lookups()
    monkeypatch.setattr(loop, "getaddrinfo", lookups.find)
    return lookups


def addresses_of(*urls):
    return [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (url.host, url.port))
        for url in map(httpx.URL, urls)
    ]


async def test_those_who_ask_for_a_host_at_the_same_time_share_a_lookup(lookups):
    addresses = Addresses()
    waiting = [asyncio.create_task(addresses.find("provider.invalid", 443)) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    lookups.answer.set_result(addresses_of("http://192.0.2.1:443"))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert found[1:] == [lookups.answer.result()] * 99, "one that left took others along"
    assert await addresses.find("provider.invalid", 443) == lookups.answer.result()
    assert lookups.asked == ["provider.invalid"]
    await addresses.aclose()


async def test_a_host_that_was_not_found_is_asked_for_again(lookups):
    addresses = Addresses()
    lookups.answer.set_exception(socket.gaierror(socket.EAI_AGAIN, "try again"))
    for _ in range(2):
        with pytest.raises(OSError, match="try again"):
            await addresses.find("provider.invalid", 443)
    assert len(lookups.asked) == 2


async def test_an_address_that_does_not_answer_holds_up_nobody(peer, transport, lookups):
    port = httpx.URL(peer.url).port
    lookups.answer.set_result(addresses_of(f"http://127.0.0.2:{port}", peer.url))
    with contextlib.ExitStack() as sockets:
        silent = sockets.enter_context(socket.socket())
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        for _ in range(4):  # they fill its queue, and nobody accepts them
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        async with asyncio.timeout(HANG_S):
            response, _ = await post(transport, f"http://provider.invalid:{port}")
    assert response.status_code == 200


async def test_a_host_in_unicode_is_asked_for_as_its_url_is_spelt(peer, transport, lookups):
    """Python's own IDNA is an older one, and `fass.invalid` may be another's."""
    port = httpx.URL(peer.url).port
    lookups.answer.set_result(addresses_of(peer.url))
    await post(transport, f"http://faß.invalid:{port}")
    assert lookups.asked == ["xn--fa-hia.invalid"]
    assert peer.requests[0].headers["host"] == f"xn--fa-hia.invalid:{port}"


async def test_no_file_descriptor_is_a_connect_error(peer, transport, monkeypatch):
    def refuse(**_options):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        with pytest.raises(httpx.ConnectError, match="Too many open files"):
            await post(transport, peer.url)
    response, _ = await post(transport, peer.url)
    assert response.status_code == 200


async def test_a_call_cancelled_while_it_connects_closes_its_socket(transport):
    met, left = asyncio.Event(), asyncio.Event()

    async def never_shakes_hands(reader, writer):
        await reader.readexactly(1)
        met.set()
        await reader.read()
        left.set()
        writer.close()

    listener = await asyncio.start_server(never_shakes_hands, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    call = asyncio.create_task(post(transport, f"https://127.0.0.1:{port}"))
    async with asyncio.timeout(HANG_S):
        await met.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await left.wait()
    listener.close()


def connections():
    """Those in memory."""
    gc.collect()
    # `isinstance` would have lazy objects of other tests be made, which may fail by now.
    return [each for each in gc.get_objects() if type(each) is Connection]


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_call_that_is_cancelled_at_any_moment_leaves_nothing(authority, loop, is_tls):
    """Also in the turn of the loop in which its connection is opened, or its reply ends. No
    connection stays, others may have its socket's number, and the loop has no complaint."""
    complaints = []
    before = connections()  # of other tests: kept, so that none of them goes meanwhile

    async def begin_after(turns, transport, peer):
        for _ in range(turns):
            await asyncio.sleep(0)
        await post(transport, peer.url)

    async def work():
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        tls = tls_of(authority) if is_tls else None
        async with Provider(OK).serve(ssl=tls) as peer:
            for turns in itertools.count():
                async with Transport(connect_timeout=HANG_S) as transport:
                    call, *others = (
                        asyncio.create_task(begin_after(turn, transport, peer))
                        for turn in range(turns + 3)
                    )
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.gather(*others)
                    await asyncio.wait([call])
                await peer.until(lambda: peer.connected == 0, f"closing after {turns} turns")
                if not call.cancelled():  # it was over
                    break
        assert turns > 1
        assert [each for each in connections() if each not in before] == []

    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
    assert complaints == []


async def test_few_connections_to_a_server_are_made_at_once_and_the_others_wait(monkeypatch):
    """Thousands of handshakes at once would all outlast the limit of time that each has."""
    monkeypatch.setattr("generation.llm.transport.pooling._MAX_CONNECTING", 2)
    accepted = 0

    async def never_shakes_hands(reader, writer):
        nonlocal accepted
        accepted += 1
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(never_shakes_hands, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with Transport(connect_timeout=HANG_S) as transport:
        calls = [asyncio.create_task(post(transport, url)) for _ in range(3)]
        await until(lambda: accepted == 2, "the first two connect")
        for _ in range(10):
            await asyncio.sleep(0)
        assert accepted == 2, "the third connects beside the others"
        calls[0].cancel()
        await until(lambda: accepted == 3, "a place that is free is taken")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    listener.close()
