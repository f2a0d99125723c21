"""The chat, with an LLM that is a queue: no socket is opened, and rows are in the test's transaction."""

import json

import pytest
from django.http import StreamingHttpResponse
from django.test import Client

from chat.models import Conversation, Message
from generation.errors import LLMRateLimited
from generation.models import GenerationLog
from generation.testing import QueuedLLM
from people.models import User

# The test's client is synchronous, so that its rows and the view's are in one transaction.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous")


def ask(browser: Client, conversation: Conversation, question: str) -> list[dict[str, str]]:
    response = browser.post(f"/chat/{conversation.pk}/ask", {"question": question})
    assert isinstance(response, StreamingHttpResponse), response.status_code
    content = b"".join(response)
    return [json.loads(line) for line in content.decode().splitlines()]


def test_question_answer_and_log_row_are_one_commit(
    browser: Client, conversation: Conversation, staccato_llm: QueuedLLM
) -> None:
    staccato_llm.answers("Because of the air.")
    *words, last = ask(browser, conversation, "Why is the sky blue?")
    assert "".join(line["text"] for line in words) == "Because of the air."
    log = GenerationLog.objects.get()
    assert last == {"done": str(log.pk)}
    asked, answered = Message.objects.all()
    assert (asked.role, asked.text) == ("user", "Why is the sky blue?")
    assert (answered.role, answered.text) == ("assistant", "Because of the air.")
    assert answered.generation_id == log.pk
    conversation.refresh_from_db()
    assert conversation.title == "Why is the sky blue?"


def test_the_llm_gets_the_history_and_the_users_persona(
    browser: Client, conversation: Conversation, staccato_llm: QueuedLLM
) -> None:
    ask(browser, conversation, "One?")
    ask(browser, conversation, "Two?")
    prompt = staccato_llm.prompts[-1]
    assert [message.role for message in prompt.messages] == ["user", "assistant", "user"]
    assert (prompt.text, prompt.system) == ("Two?", "Be kind.")


def test_a_failure_is_shown_and_kept(
    browser: Client, conversation: Conversation, staccato_llm: QueuedLLM
) -> None:
    staccato_llm.fails(LLMRateLimited("slow down"))
    assert ask(browser, conversation, "Why?") == [{"error": "slow down"}]
    assert [(each.role, each.status) for each in Message.objects.all()] == [
        ("user", "succeeded"),
        ("assistant", "failed"),
    ]
    page = browser.get(f"/chat/{conversation.pk}").content.decode()
    assert 'class="assistant failed"' in page


def test_a_conversation_is_its_owners(browser: Client, conversation: Conversation) -> None:
    other = User.objects.create_user("eve")
    browser.force_login(other)
    assert browser.get(f"/chat/{conversation.pk}").status_code == 404
    assert browser.post(f"/chat/{conversation.pk}/ask", {"question": "x"}).status_code == 404
    browser.logout()
    assert browser.post(f"/chat/{conversation.pk}/ask", {"question": "x"}).status_code == 401


def test_a_question_is_bounded(browser: Client, conversation: Conversation) -> None:
    for question in ("", " ", "x" * 20_001):
        response = browser.post(f"/chat/{conversation.pk}/ask", {"question": question})
        assert response.status_code == 400
    assert not GenerationLog.objects.exists()


def test_a_new_conversation_is_begun(browser: Client) -> None:
    response = browser.post("/", follow=True)
    assert response.status_code == 200
    assert Conversation.objects.count() == 1
