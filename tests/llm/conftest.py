"""A server that speaks each dialect, and clients that talk to it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trustme

from generation.conf import parse
from generation.llm.client import LLMClient
from generation.llm.transport import Transport
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
