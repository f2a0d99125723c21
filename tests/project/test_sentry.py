"""The recipe for Sentry in docs/operating.md: errors arrive, and no prompt with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sentry_sdk
from django.contrib.auth.views import LoginView
from django.test import Client
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from generation.llm.upstream import Upstream
from tests.support import http

PAPER = Path(__file__).parents[2] / "docs/operating.md"
CANARY = "canary-prompt"


def recipe() -> str:
    """The code as it stands there."""
    code = re.search(r"## Sentry\n.*?```python\n(.*?)```", PAPER.read_text(), re.DOTALL)[1]
    assert 'dsn="…"' in code
    return code


class Captured(Transport):
    """What would leave."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize().decode())


@pytest.fixture
def init():
    """Runs the recipe, with changes to its arguments, and returns what would leave."""

    def run(**changes) -> list[str]:
        transport = Captured()
        keep = {"dsn": "http://key@127.0.0.1:9/1", "transport": transport, **changes}
        real = sentry_sdk.init
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sentry_sdk, "init", lambda **given: real(**{**given, **keep}))
            exec(recipe(), {})
        return transport.sent

    yield run
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


async def fail(here, monkeypatch) -> None:
    """A bug, in a frame that has the prompt among its variables."""

    async def with_a_bug(_self, context, *_args, **_options):
        prompt = context.prompt.text
        raise RuntimeError(f"a bug after {len(prompt)} characters")

    monkeypatch.setattr(Upstream, "ask", with_a_bug)
    async with here() as service:
        asked = {"messages": [{"role": "user", "content": CANARY}], "metadata": {"a": CANARY}}
        assert (await http.generate(service.port, payload=asked)).status == 502


async def test_errors_reach_sentry_and_no_prompt_does(here, monkeypatch, init):
    sent = init()
    await fail(here, monkeypatch)
    assert any("the LLM call failed because of a bug" in each for each in sent)
    assert any("RuntimeError" in each for each in sent)
    assert not any(CANARY in each for each in sent)


def fail_a_page(monkeypatch) -> None:
    """A page with a bug, whose address has words that an operator searched for."""

    def with_a_bug(*_args, **_options):
        raise RuntimeError("a bug of a page")

    monkeypatch.setattr(LoginView, "dispatch", with_a_bug)
    client = Client(raise_request_exception=False)
    assert client.get("/admin/login/", {"next": f"/admin/?q={CANARY}"}).status_code == 500


def test_pages_that_fail_reach_sentry_and_no_word_of_a_search_does(monkeypatch, init):
    sent = init()
    fail_a_page(monkeypatch)
    fail_a_page(monkeypatch)  # with the first one's line among what happened before
    assert sum("a bug of a page" in each for each in sent) == 2
    assert not any(CANARY in each for each in sent)


def test_the_words_are_there_to_be_found(monkeypatch, init):
    """What the recipe takes out would have been sent."""
    sent = init(before_send=None)
    fail_a_page(monkeypatch)
    assert any(CANARY in each for each in sent)


async def test_the_prompt_is_there_to_be_found(here, monkeypatch, init):
    """What the recipe turns off would have sent it."""
    sent = init(include_local_variables=True)
    await fail(here, monkeypatch)
    assert any(CANARY in each for each in sent)
