"""A provider of the project's own gets what ours get: retries, circuit, prices, and a row."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from generation import Answer, Prompt, Provider, Usage, errors
from generation.checks import check_settings, check_unused_providers
from generation.conf import parse
from generation.conversation import Message, Text, Tool
from generation.llm.client import LLMClient
from generation.pipeline.relay import Relay
from tests.support import virtual_time
from tests.support.dialects import PROMPT, slugs

PATH = f"{__name__}.House"
OURS = {"PROVIDERS": {"house": PATH}, "LLM_PROVIDER": "house"}


class House(Provider):
    """Says, or raises, what the test has put into `script`; then "Hello."."""

    default_model = "gpt-6-luna"
    price_list = "openai"
    script: ClassVar[deque[Any]] = deque()
    closed = 0

    async def ask(self, prompt: Prompt, model: str) -> Answer:
        said = self.script.popleft() if self.script else "Hello."
        if isinstance(said, BaseException):
            raise said
        return Answer(said, Usage(1000, 1000)) if isinstance(said, str) else said

    async def stream(self, prompt: Prompt, model: str) -> AsyncIterator[str | Answer]:
        for piece in self.script or ("Hel", "lo."):
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        if not self.script:
            yield Answer(usage=Usage(1000, 1000), model="gpt-6-luna-2026")

    async def aclose(self) -> None:
        type(self).closed += 1


class Whole(Provider):
    default_model = "m"

    async def ask(self, prompt: Prompt, model: str) -> Answer:
        return Answer(f"{prompt.text} by {model}")


class Unwritten(Provider):
    default_model = "m"


class Nameless(Provider):
    async def ask(self, prompt: Prompt, model: str) -> Answer:
        return Answer()


class Picky(Whole):
    def __init__(self, key: str) -> None:
        self.key = key


class Bare:
    default_model = "m"


class Silent(Whole):
    async def stream(self, prompt, model):  # type: ignore[override]  # it is wrong
        return "a text"


def a_function() -> None: ...


@pytest.fixture(autouse=True)
def script():
    House.script = deque()
    House.closed = 0
    return House.script


def failed(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://house")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("no", request=request, response=response)


def wrapped(cause: Exception) -> Exception:
    """As SDKs raise what their transport did."""
    error = RuntimeError("Connection error.")
    error.__cause__ = cause
    return error


async def ask(prompt: Prompt = PROMPT, **settings):
    async with LLMClient.open(parse(OURS | settings)) as llm:
        return await llm.complete(prompt)


async def test_a_whole_answer_has_its_price_and_its_model():
    outcome = await ask()
    reply = outcome.require_reply()
    assert (reply.text, outcome.provider, outcome.model) == ("Hello.", "house", "gpt-6-luna")
    assert reply.cost_usd > 0
    assert House.closed == 1


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (failed(429, **{"retry-after": "0"}), "llm-rate-limited"),
        (failed(500), "llm-unreachable"),
        (errors.LLMOverloaded("busy"), "llm-overloaded"),
        (wrapped(httpx.ReadTimeout("slow")), "llm-timed-out"),
        (ConnectionRefusedError("nobody"), "llm-unreachable"),
    ],
    ids=["429", "500", "our own class", "an SDK's", "the system's"],
)
def test_a_passing_failure_is_tried_again(script, error, slug):
    script.append(error)
    outcome = virtual_time.run(ask())
    assert slugs(outcome.attempts) == [slug, ""]
    assert outcome.require_reply().text == "Hello."


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (failed(401), errors.LLMAuthentication),
        (errors.LLMRefused("not that"), errors.LLMRefused),
        ("", errors.LLMBadReply),
        (Answer("no", stop_reason="refusal"), errors.LLMRefused),
        ("x" * 2000, errors.LLMBadReply),
    ],
    ids=["401", "refused", "empty", "declined", "too long"],
)
async def test_what_a_repetition_cannot_help_is_asked_once(script, said, kind):
    script.extend([said])
    outcome = await ask(LLM_MAX_REPLY_BYTES=1024)
    assert type(outcome.error) is kind
    assert len(outcome.attempts) == 1


@pytest.mark.parametrize("said", [KeyError("choices"), 7], ids=["a bug", "no answer"])
async def test_a_bug_is_raised_as_it_is(script, said):
    script.append(said)
    with pytest.raises((KeyError, TypeError), match=r"choices|returned int, not an Answer"):
        await ask()


def test_failures_open_its_circuit(script):
    script.extend([failed(500)] * 200)

    async def main():
        async with LLMClient.open(parse(OURS | {"LLM_MAX_ATTEMPTS": 1})) as llm:
            for _ in range(20):
                last = (await llm.complete(PROMPT)).error
        return last

    assert virtual_time.run(main()).slug == "llm-circuit-open"


async def test_a_fallback_answers_in_its_place(script):
    script.append(failed(401))
    outcome = await ask(LLM_FALLBACKS="simulated", LLM_SIMULATED_LATENCY="0")
    assert [attempt.provider for attempt in outcome.attempts] == ["house", "simulated"]


async def stream(**settings):
    """Returns the outcome, and the events that its reader has got."""
    relay = Relay()
    async with LLMClient.open(parse(OURS | settings)) as llm:
        return await llm.run(llm.begin(PROMPT, relay)), relay.events


async def test_a_stream_is_handed_on_piece_by_piece():
    outcome, (start, *pieces) = await stream()
    assert (start.provider, [piece.text for piece in pieces]) == ("house", ["Hel", "lo."])
    reply = outcome.require_reply()
    assert (reply.text, reply.usage.total_tokens) == ("Hello.", 2000)
    assert outcome.model == "gpt-6-luna-2026"


async def test_a_provider_that_writes_no_stream_answers_whole():
    outcome, (_start, piece) = await stream(PROVIDERS={"house": f"{__name__}.Whole"})
    assert piece.text == outcome.require_reply().text == f"{PROMPT.text} by m"


@pytest.mark.parametrize(
    "end", [[], [failed(500)], [wrapped(OSError())]], ids=["none", "500", "io"]
)
async def test_a_stream_that_breaks_off_keeps_what_has_come(script, end):
    script.extend(["Half of", " it", *end])
    outcome, _ = await stream()
    assert type(outcome.error) is errors.StreamBroken
    assert outcome.reply.text == "Half of it"
    assert outcome.reply.usage.is_estimated


def test_a_stream_that_fails_before_its_first_piece_is_tried_again(monkeypatch):
    attempts = []

    async def pieces(self, prompt, model):
        attempts.append(model)
        if len(attempts) == 1:
            raise failed(503)
        yield Answer("whole")

    monkeypatch.setattr(House, "stream", pieces)
    outcome, (_start, piece) = virtual_time.run(stream())
    assert (piece.text, len(attempts)) == ("whole", 2)
    assert slugs(outcome.attempts) == ["llm-overloaded", ""]


async def test_what_it_has_no_place_for_is_refused_unpaid():
    said = Message("user", (Text("one"),))
    async with LLMClient.open(parse(OURS)) as llm:
        prompts: dict[str, Any] = {
            "a conversation": {"messages": (said, said)},
            "tools": {"messages": (said,), "tools": (Tool("t", "", {}),)},
        }
        for noun, given in prompts.items():
            prompt = Prompt("one", "", "house", "", 10, **given)
            with pytest.raises(errors.ParameterNotSupported, match=f"not support {noun}"):
                llm.check(prompt)
        llm.check(Prompt("one", "", "house", "", 10, messages=(said,)))


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("nowhere.House", "nowhere.House can't be imported: ModuleNotFoundError"),
        (f"{__name__}.Mansion", "can't be imported: AttributeError"),
        (f"{__name__}.a_function", "a_function is no class, but function"),
        (f"{__name__}.Unwritten", "Unwritten inherits ask() and does not write it"),
        (f"{__name__}.Nameless", "Nameless has no default_model"),
        (f"{__name__}.Bare", "lacks price_list: write it, or inherit from generation.Provider"),
        (f"{__name__}.Silent", "Silent.stream() yields nothing"),
        (f"{__name__}.Picky", "Picky takes arguments, but it is made without any"),
    ],
)
def test_a_wrong_path_is_an_error_of_check(path, fault, settings):
    settings.STACCATO = {"PROVIDERS": {"house": path}, "LLM_PROVIDER": "simulated"}
    [error] = check_settings()
    assert error.id == "staccato.E001"
    assert error.msg.startswith("PROVIDERS['house']: ")
    assert fault in error.msg


@pytest.mark.parametrize("name", ["openai", "auto", "own", "House", "a b"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(ImproperlyConfigured, match=f"STACCATO_PROVIDERS=.*{name} can't be a"):
        parse({"PROVIDERS": {name: PATH}})


def test_one_that_nothing_names_is_a_warning(settings):
    settings.STACCATO = {"PROVIDERS": f"house={PATH}", "LLM_PROVIDER": "simulated"}
    [warning] = check_unused_providers()
    assert "PROVIDERS['house'] is set, but house is never asked" in warning.msg


async def test_closing_it_is_bounded_and_harmless(monkeypatch, caplog):
    async def fails(self):
        raise ValueError("no")

    monkeypatch.setattr(House, "aclose", fails)
    with caplog.at_level(logging.ERROR):
        assert (await ask()).require_reply().text == "Hello."
    assert f"{PATH} could not be closed" in caplog.text
