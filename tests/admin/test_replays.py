"""A generation is sent again to another model, and both are shown side by side."""

from __future__ import annotations

import re
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import AsyncClient

from generation import access, replaying
from generation.admin.word_diff import LONG, MOST_WORDS, UNLIKE, Span, compare
from generation.conversation import Image, Message, Options, Text, Tool, dump_conversation
from generation.models import (
    ForgottenUser,
    GenerationAccess,
    GenerationBody,
    GenerationLog,
    Limit,
    Profile,
)
from generation.runtime.process import Runtime
from tests.support.admin import LOGS, save_log
from tests.support.in_process import in_process_client

NEEDED = "view_generationlog read_content replay"
OPERATOR = 40


@pytest.fixture
async def runtime(users, orm, monkeypatch):
    async def nothing(_runtime: Runtime) -> None: ...

    monkeypatch.setattr(Runtime, "tidy_up", nothing)
    async with Runtime.open() as opened:
        yield opened


async def log_in(codenames: str = NEEDED) -> AsyncClient:
    """Returns a browser with a session and, once it has seen a page, a token for forms."""

    def make():
        user, _ = get_user_model().objects.get_or_create(
            id=OPERATOR, username="operator", is_staff=True
        )
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames.split()))
        return user

    browser = AsyncClient(enforce_csrf_checks=True)
    await browser.aforce_login(await sync_to_async(make)())
    return browser


async def page_of(browser: AsyncClient, log: GenerationLog) -> str:
    return (await browser.get(f"{LOGS}{log.pk}/change/")).content.decode()


async def send_again(browser: AsyncClient, log: GenerationLog, *, token: str = "", **values):
    """As the form of the page does, through the service."""
    async with in_process_client() as client:
        for name, morsel in browser.cookies.items():
            client.cookies.set(name, morsel.value)
        form = {"csrfmiddlewaretoken": token, "target": "simulated:simulated", **values}
        return await client.post(f"/api/v1/generations/{log.pk}/replay", data=form)


async def prepared(codenames: str = NEEDED, **values):
    log = await sync_to_async(save_log)(**{"prompt": "Say it.", "system": "Be kind.", **values})
    browser = await log_in(codenames)
    html = await page_of(browser, log)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', html)
    return browser, log, html, token[1] if token else ""


def accesses() -> list:
    entries = GenerationAccess.objects.order_by("pk")
    return list(entries.values_list("action", "user_id", "log_id"))


async def test_it_is_the_operators_and_names_the_first(runtime):
    browser, log, html, token = await prepared()
    assert "simulated:simulated" in html
    answer = await send_again(browser, log, token=token)
    assert answer.status_code == 302, answer.text
    again = await GenerationLog.objects.select_related("body").aget(replay_of=log.pk)
    assert answer.headers["location"] == f"{LOGS}{again.pk}/compare/"
    assert (again.user_id, again.provider, again.status) == (OPERATOR, "simulated", "succeeded")
    assert (again.body.prompt, again.body.system) == ("Say it.", "Be kind.")
    assert ("replay", OPERATOR, log.pk) in await sync_to_async(accesses)()
    html = (await browser.get(answer.headers["location"])).content.decode()
    assert UNLIKE in html
    assert "Say it." in html
    assert f"{again.pk}/compare/" in await page_of(browser, log)
    assert f"{again.pk}/compare/" in await page_of(browser, again)


async def test_no_connection_is_held_while_the_model_works(runtime, monkeypatch):
    """None of Django's, of the thread that reads the session; our own guard sees the others."""
    browser, log, _, token = await prepared()
    held = []
    run = runtime.llm.run

    async def look(context):
        held.append(await sync_to_async(lambda: connections["default"].connection)())
        return await run(context)

    monkeypatch.setattr(runtime.llm, "run", look)
    assert (await send_again(browser, log, token=token)).status_code == 302
    assert held == [None]


async def test_a_user_who_is_forgotten_meanwhile_leaves_no_text_in_the_answer(runtime, monkeypatch):
    """Also where the answer is to what an operator had sent again before."""
    first = await sync_to_async(save_log)(user_id=17, prompt="Say it.")
    browser, log, _, token = await prepared(user_id=OPERATOR, replay_of=first.pk)
    run = runtime.llm.run

    async def forgetting(context):
        await ForgottenUser.objects.acreate(user_id=17)
        return await run(context)

    monkeypatch.setattr(runtime.llm, "run", forgetting)
    assert (await send_again(browser, log, token=token)).status_code == 302
    again = await GenerationLog.objects.exclude(pk=log.pk).aget(replay_of=first.pk)
    assert again.status == "succeeded"
    assert not await GenerationBody.objects.filter(pk=again.pk).aexists()


@pytest.mark.parametrize("lacking", NEEDED.split())
async def test_it_takes_three_permissions(runtime, lacking):
    browser, log, _, token = await prepared()
    await log_in(NEEDED.replace(lacking, ""))
    answer = await send_again(browser, log, token=token)
    assert (answer.status_code, "permissions" in answer.text) == (403, True)
    assert not await GenerationLog.objects.filter(replay_of=log.pk).aexists()


async def test_a_stranger_and_another_sites_form_are_refused(runtime, subtests):
    browser, log, _, token = await prepared()
    for who, visitor, given in (
        ("no session", AsyncClient(), token),
        ("no token", browser, ""),
        ("another token", browser, "x" * 64),
    ):
        with subtests.test(who):
            assert (await send_again(visitor, log, token=given)).status_code == 403
    assert not await GenerationLog.objects.filter(replay_of=log.pk).aexists()


async def test_its_operators_limits_count_and_not_the_customers(runtime):
    browser, log, _, token = await prepared(user_id=1)
    await Limit.objects.acreate(scope="user", user_id=1, unit="requests", amount=0, window="day")
    await runtime.limits.refresh()
    assert (await send_again(browser, log, token=token)).status_code == 302
    await Limit.objects.acreate(
        scope="user", user_id=OPERATOR, unit="requests", amount=0, window="day"
    )
    await runtime.limits.refresh()
    answer = await send_again(browser, log, token=token)
    assert answer.status_code == 403
    assert "limit of requests per day is 0" in answer.text


async def test_the_strictest_choice_of_both_users_is_kept(runtime):
    browser, log, _, token = await prepared(user_id=1)
    await Profile.objects.filter(pk=1).aupdate(log_content="metadata")
    assert (await send_again(browser, log, token=token)).status_code == 302
    again = await GenerationLog.objects.select_related("body").aget(replay_of=log.pk)
    assert (again.body.content, again.body.prompt) == ("metadata", "")


async def test_where_the_record_cannot_be_written_nothing_is_sent(runtime, monkeypatch):
    browser, log, _, token = await prepared()

    def fail(*_args, **_kwargs) -> None:
        raise access.NotRecorded("away")

    monkeypatch.setattr(access, "record", fail)
    answer = await send_again(browser, log, token=token)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert not await GenerationLog.objects.filter(replay_of=log.pk).aexists()


async def test_a_model_that_is_not_offered_is_refused(runtime):
    browser, log, _, token = await prepared()
    for target in ("openai:gpt-9", "", "x", "simulated:\0"):
        answer = await send_again(browser, log, token=token, target=target)
        assert answer.status_code == 422, answer.text


# --- what can be sent again -----------------------------------------------------------------------

TOO_LONG = [Message("user", (Text("a" * 70_000),))] * 8
LACKS: dict[str, dict[str, Any]] = {
    "only as “redacted”": {"content": "redacted"},
    "only as “hashed”": {"content": "hashed"},
    "only as “metadata”": {"content": "metadata", "prompt": ""},
    "encrypted with key": {"encryption_key": "gone"},
    "size and a hash": {
        "conversation": dump_conversation(
            [Message("user", (Image(data="aaaa", media_type="image/png"),))], (), Options()
        )
    },
    "conversation was too long": {"conversation": dump_conversation(TOO_LONG, (), Options())},
    "system prompt was too long": {
        "conversation": dump_conversation([Message("user", (Text("a"),))], (), Options()),
        "system": "a\n[12 more characters are not kept]",
    },
    "embeddings": {"result": ""},
}


def test_what_was_not_kept_whole_is_not_sent_and_the_reason_is_named(committed, subtests):
    for words, values in LACKS.items():
        with subtests.test(words):
            log = save_log(**values)
            with pytest.raises(replaying.NotReplayable, match=words):
                replaying.read(log)
    log = save_log()
    GenerationBody.objects.filter(pk=log.pk).delete()
    with pytest.raises(replaying.NotReplayable, match="no longer kept"):
        replaying.read(log)


async def test_the_page_says_why_there_is_no_button(orm, users):
    _, _, html, _ = await prepared(content="hashed")
    assert "can’t be sent again, because the log keeps its texts only as “hashed”" in html
    assert 'id="replay-form"' not in html


def test_a_conversation_is_sent_as_it_was(committed):
    messages = (
        Message("user", (Text("What is it?"), Image(url="https://example.org/a.png"))),
        Message("assistant", (Text("A cat."),)),
        Message("user", (Text("And now?"),)),
    )
    tools = (Tool("look", "Looks.", {"type": "object"}, is_strict=True),)
    options = Options(temperature=0.5, stop=("x",), parallel_tool_calls=False)
    log = save_log(conversation=dump_conversation(messages, tools, options))
    found = replaying.read(log)
    assert (found.messages, found.tools, found.options) == (messages, tools, options)
    assert found.prompt is None


# --- the words that differ ------------------------------------------------------------------------


def test_the_marked_words_are_those_that_differ():
    left, right, note = compare("The cat sat.\nIt slept.", "The dog sat.\nIt  slept.")
    assert [span.text for span in left if span.differs] == [" cat"]
    assert [span.text for span in right if span.differs] == [" dog"]
    assert "".join(span.text for span in right) == "The dog sat.\nIt  slept."
    assert note == ""
    assert compare("one", "another") == ([Span("one", False)], [Span("another", False)], UNLIKE)
    assert compare("", "another")[1:] == ([Span("another", False)], "")


def test_long_texts_are_compared_at_their_beginning():
    long = " ".join(map(str, range(MOST_WORDS + 9)))
    left, right, note = compare(long, f"x {long}")
    assert note == LONG
    assert "".join(span.text for span in left) == long
    assert "".join(span.text for span in right) == f"x {long}"
