"""The same answers over a WebSocket."""

from typing import Any

from channels.testing import WebsocketCommunicator

from chat.consumers import ChatConsumer
from chat.models import Conversation, Message
from generation.testing import QueuedLLM
from people.models import User


def communicator(user: User, conversation: Conversation) -> WebsocketCommunicator:
    opened = WebsocketCommunicator(ChatConsumer.as_asgi(), f"/ws/{conversation.pk}")
    scope: Any = opened.scope
    scope.update(user=user, url_route={"kwargs": {"conversation_id": conversation.pk}})
    return opened


async def test_a_question_is_answered_word_by_word(eve: User, staccato_llm: QueuedLLM) -> None:
    conversation = await Conversation.objects.acreate(owner=eve)
    staccato_llm.answers("in three words")
    socket = communicator(eve, conversation)
    assert (await socket.connect())[0]
    await socket.send_json_to({"question": "Why?"})
    lines = [await socket.receive_json_from() for _ in range(4)]
    assert "".join(line.get("text", "") for line in lines) == "in three words"
    assert "done" in lines[-1]
    await socket.disconnect()
    assert await Message.objects.filter(conversation=conversation).acount() == 2


async def test_a_conversation_of_somebody_else_is_closed(eve: User) -> None:
    conversation = await Conversation.objects.acreate(owner=eve)
    other = await User.objects.acreate(username="mallory")
    assert not (await communicator(other, conversation).connect())[0]
