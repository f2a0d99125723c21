"""Threads that leave no connection of Django's open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from django.db import connections

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """`asyncio.to_thread`, and the thread closes what it has opened.

    Another call to `to_thread` may get another thread. What a thread leaves open is found when the
    collector comes by, and fails the test that runs then.
    """

    def run() -> Result:
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)
