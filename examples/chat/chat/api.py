"""The project's own API. Below /api/v1/llm/ it has Staccato's router, behind this site's sessions."""

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import NinjaAPI, Schema
from ninja.security import django_auth

from chat.models import Conversation
from generation.mounted.ninja import make_router

api = NinjaAPI(title="Chat", version="1", auth=django_auth)
api.add_router("llm/", make_router())


class ConversationOut(Schema):
    id: UUID
    title: str
    updated_at: datetime


@api.get("/conversations", response=list[ConversationOut])
def conversations(request: HttpRequest) -> list[Conversation]:
    return list(Conversation.objects.filter(owner_id=request.user.pk))
