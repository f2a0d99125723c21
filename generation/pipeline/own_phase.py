"""A phase 2 in the hands of code in this process, which calls its LLM with a library of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from generation.llm.completion import Outcome
from generation.records import Prompt

if TYPE_CHECKING:
    from generation.records import LogContent

PROVIDER = "own"  # of the row, unless the code names another


class OwnPhase:
    """Build it in the runtime's loop. The pipeline says when phase 2 begins, and waits for what
    comes of it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        self.text = ""  # the prompt, for the row
        self.system = ""

    def begin(self) -> None:
        if not self.begun.done():  # else the code has left meanwhile
            self.begun.set_result(None)

    def settle(self, outcome: Outcome) -> None:
        """Does nothing if the generation was abandoned before."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def outcome(self) -> Outcome:
        return await self._outcome

    def prompt(self, log_content: LogContent) -> Prompt:
        """Returns what was sent, as far as the code has said it."""
        return Prompt(self.text, self.system, PROVIDER, "", 0, log_content=log_content)
