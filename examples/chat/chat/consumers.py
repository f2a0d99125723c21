"""The same answers over a WebSocket: send {"question": …}, read the lines."""

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from chat.answers import answer
from chat.models import Conversation
from people.models import User

NOT_YOURS = 4404


class ChatConsumer(AsyncJsonWebsocketConsumer):
    user: User
    conversation: Conversation | None = None

    async def connect(self) -> None:
        user, route = self.scope.get("user"), self.scope.get("url_route")
        if user is not None and user.is_authenticated and route is not None:
            self.user = await User.objects.aget(pk=user.pk)
            found = Conversation.objects.filter(pk=route["kwargs"]["conversation_id"])
            self.conversation = await found.filter(owner=self.user).afirst()
        if self.conversation is None:
            await self.close(code=NOT_YOURS)
        else:
            await self.accept()

    async def receive_json(self, content: Any, **_kwargs: Any) -> None:
        question = str(content.get("question", "")).strip()
        if question and self.conversation is not None:
            async for line in answer(self.user, self.conversation, question):
                await self.send_json(line)
