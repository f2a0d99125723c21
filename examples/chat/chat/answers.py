"""A question of a conversation, and its answer while the LLM writes it.

The view and the consumer send what this yields. No database connection is held meanwhile, and the
question, its answer and the log row are written in one commit.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from chat.models import Conversation, Message
from generation import FromGeneration, Insert, Update, stream
from generation.errors import StaccatoError
from people.models import User

Line = dict[str, str]  # {"text": …}, at last {"done": the log row's id}, or {"error": a sentence}
REMEMBERED = 20  # messages


async def answer(user: User, conversation: Conversation, question: str) -> AsyncIterator[Line]:
    messages = [*await _history(conversation), {"role": "user", "content": question}]
    asked_at = timezone.now()
    effects = [
        Insert(
            Message,
            {
                "conversation": conversation,
                "role": "user",
                "text": question,
                "created_at": asked_at,
            },
        ),
        Insert(
            Message,
            {
                "id": uuid4(),
                "conversation": conversation,
                "role": "assistant",
                "text": FromGeneration("result"),
                "status": FromGeneration("status"),
                "generation_id": FromGeneration("id"),
                "created_at": asked_at + timedelta(milliseconds=1),
            },
        ),
        Update(
            Conversation,
            {"pk": conversation.pk},
            {"updated_at": asked_at, "title": conversation.title or question[:80]},
        ),
    ]
    try:
        async with stream(user, messages=messages, effects=effects) as reply:
            async for text in reply.texts():
                yield {"text": text}
    except StaccatoError as error:
        yield {"error": error.detail}
        return
    if reply.generation is not None:
        yield {"done": str(reply.generation.id)}


async def _history(conversation: Conversation) -> list[dict[str, str]]:
    newest = Message.objects.filter(conversation=conversation).exclude(text="")
    found = [message async for message in newest.order_by("-created_at")[:REMEMBERED]]
    return [{"role": message.role, "content": message.text} for message in reversed(found)]
