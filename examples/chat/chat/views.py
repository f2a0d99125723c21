"""The pages, and the view that streams an answer."""

import json
from collections.abc import AsyncIterator
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, StreamingHttpResponse
from django.shortcuts import aget_object_or_404, get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from chat.answers import answer
from chat.models import Conversation, Message
from generation import released
from people.models import User

LONGEST = 20_000  # characters of a question


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """GET shows the list; POST begins a conversation."""
    if request.method == "POST":
        conversation = Conversation.objects.create(owner=_user(request))
        return redirect("conversation", conversation.pk)
    return render(request, "chat/chat.html", {"conversations": _conversations(request)})


@login_required
def show(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    conversation = get_object_or_404(Conversation, pk=conversation_id, owner=_user(request))
    shown = {
        "conversations": _conversations(request),
        "conversation": conversation,
        "messages_shown": Message.objects.filter(conversation=conversation),
    }
    return render(request, "chat/chat.html", shown)


@require_POST
async def ask(request: HttpRequest, conversation_id: UUID) -> HttpResponse | StreamingHttpResponse:
    """Streams the answer as lines of JSON."""
    user = await request.auser()
    if not isinstance(user, User):
        return HttpResponse(status=401)
    conversation = await aget_object_or_404(Conversation, pk=conversation_id, owner=user)
    question = request.POST.get("question", "").strip()
    if not question or len(question) > LONGEST:
        return HttpResponseBadRequest(f"A question has 1 to {LONGEST:,} characters.")

    async def lines() -> AsyncIterator[str]:
        async for line in answer(user, conversation, question):
            yield json.dumps(line) + "\n"

    async with released():  # or it is held until the first line is asked for
        return StreamingHttpResponse(
            lines(), content_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"}
        )


def _conversations(request: HttpRequest) -> list[Conversation]:
    return list(Conversation.objects.filter(owner=_user(request))[:50])


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the login is required
    return request.user
