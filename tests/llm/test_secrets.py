"""Keys are in the request and nowhere else."""

from __future__ import annotations

import logging
import traceback
from base64 import b64encode

import httpx
import pytest

from generation import errors
from generation.conf import parse
from generation.llm.providers.parsing import excerpt
from generation.llm.transport import Transport
from generation.pipeline.relay import Relay
from tests.support.dialects import KEY
from tests.support.provider import hangs, resets, says, sends
from tests.support.transport import ask
from tests.support.waiting import HANG_S

ECHO = (
    f'{{"error": {{"type": "x", "message": "Incorrect API key provided: {KEY} sk-masked***7e21"}}}}'
)
PARTS = (KEY, KEY[:10], KEY[-8:], "sk-masked")


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "behaviour",
    [says(status, ECHO.encode()) for status in (200, 301, 400, 401, 403, 404, 413, 429, 500, 529)]
    + [
        says(200, KEY.encode()),
        says(200, b" " * 3990 + KEY.encode()),
        says(400, ECHO.replace("Incorrect", "x" * 290).encode()),
        hangs,
        resets,
        sends(b""),
        sends(KEY.encode() + b"\r\n\r\n"),
    ],
)
async def test_no_error_shows_a_key(client, server, prompt, caplog, behaviour, is_streamed):
    caplog.set_level(logging.DEBUG)
    server.behave = behaviour
    async with client(LLM_MAX_ATTEMPTS=2, LLM_TIMEOUT=0.5) as llm:
        outcome = await llm.run(llm.begin(prompt, Relay() if is_streamed else None))
        shown = [repr(llm), repr(vars(llm)), repr(llm._upstreams)]
        shown += [repr(vars(upstream.provider)) for upstream in llm._upstreams.values()]
    assert server.requests, "nothing was asked, so nothing was tried"
    error = outcome.error
    assert error is not None
    shown += [str(error), repr(error), error.detail, error.raw_reply, repr(outcome)]
    shown += traceback.format_exception(error)
    shown += [record.getMessage() + str(record.__dict__) for record in caplog.records]
    for text in shown:
        for part in PARTS:
            assert part not in text


def local_variables(error):
    """Of every frame that is ours, as an error tracker shows them."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("generation."):
                yield from map(repr, frame.f_locals.values())
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("behaviour", [hangs, resets, sends(b""), says(401, b"{}")])
async def test_no_variable_of_an_errors_frames_shows_a_key(
    client, server, prompt, behaviour, is_streamed
):
    server.behave = behaviour
    async with client(LLM_MAX_ATTEMPTS=1, LLM_TIMEOUT=0.5) as llm:
        [upstream] = llm._upstreams.values()  # an outcome's error has no frames any more
        with pytest.raises(errors.LLMError) as caught:
            context = llm.begin(prompt, Relay() if is_streamed else None)
            await upstream.ask(context, "some-model", has_fallback=False)
    assert not [text for text in local_variables(caught.value) if KEY in text]


@pytest.mark.parametrize(
    ("proxy", "headers"),
    [
        ("socks5://someone:canary@proxy.invalid:1080", {}),
        ("http://someone:canary@127.0.0.1:{port}", {"x": "a\nb"}),
        ("http://someone:canary@127.0.0.1:{port}", {}),
    ],
    ids=["no HTTP proxy", "an unsendable header", "a refusal"],
)
async def test_no_variable_of_an_errors_frames_shows_a_proxys_password(
    peer, monkeypatch, proxy, headers
):
    peer.behave = says(407, b"")
    monkeypatch.setenv("http_proxy", proxy.format(port=httpx.URL(peer.url).port))
    monkeypatch.delenv("no_proxy", raising=False)
    async with Transport(connect_timeout=HANG_S) as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await ask(transport, "http://provider.invalid", **headers)
    encoded = b64encode(b"someone:canary").decode()
    shown = [*local_variables(caught.value)]
    assert shown
    assert not [text for text in shown if "canary" in text or encoded in text]


async def test_the_settings_do_not_show_a_key(dialect):
    settings = parse(dialect.settings("http://127.0.0.1:1"))
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert KEY not in text


async def test_a_reply_kept_for_the_log_does_not_show_a_key(client, server, dialect, prompt):
    server.behave = says(200, dialect.cut_off(f"The key is {KEY}, isn't it?"))
    async with client() as llm:
        reply = (await llm.complete(prompt)).require_reply()
    assert KEY not in reply.raw_reply


def test_an_excerpt_hides_keys_across_its_edge():
    for offset in range(3900, 4010):
        text = excerpt(b"x" * offset + KEY.encode() + b"y" * 100, KEY)
        assert not any(part in text for part in PARTS), offset


def test_an_excerpt_hides_a_key_that_the_reply_breaks_off_in():
    for length in range(8, len(KEY)):
        assert excerpt(f"no such key: {KEY[:length]}".encode(), KEY) == "no such key: [key]"


def test_an_excerpt_hides_keys_however_often_they_are_repeated():
    key = "canary/" + "Zq7" * 40
    for source in (key * 1000, (key * 1000).encode()):
        assert "Zq7" not in excerpt(source, key)


@pytest.mark.parametrize(
    "spelt", [r"a+c\/canary=", "a%2Bc%2Fcanary%3D", r"a\u002bc\u002fcanary\u003d"]
)
def test_an_excerpt_hides_a_key_as_json_and_addresses_write_it(spelt):
    assert excerpt(f"<{spelt}>".encode(), "a+c/canary=") == "<[key]>"


def test_a_dummy_key_does_not_blacken_the_log():
    assert excerpt(b"none of this is secret", "none") == "none of this is secret"
