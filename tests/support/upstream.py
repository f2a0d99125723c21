"""The service in this process, with a scripted provider at the wire."""

from __future__ import annotations

import contextlib
from typing import Any

from generation.models import GenerationLog
from generation.runtime.process import Runtime
from tests.support.in_process import in_process_client, quiet_runtimes
from tests.support.provider import Provider, says


@contextlib.asynccontextmanager
async def serving(settings, dialect, **values: Any):
    """Yields a client and the provider that speaks the dialect."""
    async with Provider(says(200, dialect.answer())).serve() as provider:
        settings.STACCATO = {
            **settings.STACCATO,
            **dialect.settings(provider.url),
            "LLM_PROVIDER": dialect.name,
            "LLM_MAX_ATTEMPTS": "1",
            **values,
        }
        with quiet_runtimes():
            async with Runtime.open(), in_process_client() as client:
                yield client, provider


async def latest_row() -> GenerationLog:
    return await GenerationLog.objects.select_related("body").order_by("-id").afirst()
