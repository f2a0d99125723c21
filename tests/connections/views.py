"""A host's views, as URLs: what is slow in them is an event of the test's."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from generation import released

barrier: Any = None  # the tests' own; await it where a view would wait for its LLM


async def waits_released(request):
    await get_user_model().objects.acount()
    async with released():
        await barrier()
    return HttpResponse(str(await get_user_model().objects.acount()))


def waits_released_sync(request):
    get_user_model().objects.count()
    with released():
        pass
    return HttpResponse(b"")


async def waits_holding(request):
    await get_user_model().objects.acount()
    await asyncio.to_thread(time.sleep, 0.6)
    return HttpResponse(b"")


def sleeps_in_postgres(request):
    with transaction.atomic():
        get_user_model().objects.raw("SELECT 1 AS id, pg_sleep(0.6)")[0]
    return HttpResponse(b"")


def streams_holding(request):
    get_user_model().objects.count()
    return StreamingHttpResponse(iter([b"a", b"b"]))


urlpatterns = [
    path("waits-released", waits_released),
    path("waits-released-sync", waits_released_sync),
    path("waits-holding", waits_holding),
    path("sleeps-in-postgres", sleeps_in_postgres),
    path("streams-holding", streams_holding),
]
