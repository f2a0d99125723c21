"""The project's own API. Below /api/v1/llm/ it has Staccato's router, behind this site's sessions."""

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import NinjaAPI, Schema
from ninja.security import django_auth

from chat.models import Conversation
from generation import generate_sync
from generation.mounted.ninja import make_router

api = NinjaAPI(title="Chat", version="1", auth=django_auth)
api.add_router("llm/", make_router())


class ConversationOut(Schema):
    id: UUID
    title: str
    updated_at: datetime


@api.post("/conversations/{conversation_id}/title", response=ConversationOut)
def suggest_title(request: HttpRequest, conversation_id: UUID) -> Conversation:
    """A synchronous view: the LLM names the conversation."""
    mine = Conversation.objects.filter(owner_id=request.user.pk)
    conversation = get_object_or_404(mine, pk=conversation_id)
    asked = f"Give a title of at most five words to what begins with: {conversation}"
    conversation.title = generate_sync(request.user, prompt=asked).result[:80]
    conversation.save()
    return conversation


@api.get("/conversations", response=list[ConversationOut])
def conversations(request: HttpRequest) -> list[Conversation]:
    return list(Conversation.objects.filter(owner_id=request.user.pk))
