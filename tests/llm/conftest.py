"""A server that speaks each dialect, and clients that talk to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import trustme

from generation.conf import parse
from generation.events import TextDelta
from generation.llm.client import LLMClient
from generation.llm.transport import Transport
from generation.pipeline.relay import Relay
from generation.records import Prompt
from tests.support.dialects import DIALECTS
from tests.support.provider import Provider, says
from tests.support.transport import OK
from tests.support.waiting import HANG_S


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request):
    return request.param


@pytest.fixture
async def server(dialect):
    async with Provider(says(200, dialect.answer())).serve() as running:
        yield running


@pytest.fixture
def client(dialect, server):
    """`async with client(LLM_TIMEOUT=1) as llm:` a client of the server, in its dialect."""

    @asynccontextmanager
    async def open_client(**settings):
        async with LLMClient.open(parse(dialect.settings(server.url, **settings))) as llm:
            yield llm

    return open_client


class Clock:
    """Seconds, as `loop.time` gives them; the test moves it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def prompt():
    return Prompt(text="Say hello.", system="Be brief.", provider="", model="", max_tokens=100)


@pytest.fixture
async def peer():
    async with Provider(OK).serve() as running:
        yield running


@pytest.fixture
async def transport():
    async with Transport(connect_timeout=HANG_S) as transport:
        yield transport


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """A certificate authority that SSL_CERT_FILE names."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return authority


class Streaming:
    """A client and the relays of what it has streamed."""

    def __init__(self, llm: LLMClient, prompt):
        self.llm = llm
        self.prompt = prompt
        self.relay = Relay()

    def start(self):
        """Returns the context and the task of a streamed answer."""
        self.relay = Relay()
        context = self.llm.begin(self.prompt, self.relay)
        return context, asyncio.create_task(self.llm.run(context))

    async def outcome(self):
        _, task = self.start()
        return await task

    @property
    def text(self):
        return "".join(e.text for e in self.relay.events if isinstance(e, TextDelta))

    async def until_text(self, text):
        async with asyncio.timeout(HANG_S):
            reader = self.relay.reader()
            while self.text != text:
                await reader.read()
            reader.close()


@pytest.fixture
def streaming(client, prompt):
    @asynccontextmanager
    async def open_streaming(**settings):
        async with client(**settings) as llm:
            yield Streaming(llm, prompt)

    return open_streaming
