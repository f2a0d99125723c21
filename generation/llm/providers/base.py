"""What a provider is to the client, and what one attempt brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from generation.conversation import ToolUse
from generation.records import Reply, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from generation.conf import Settings
    from generation.conversation import Block
    from generation.llm.streamed_attempt import StreamedAttempt
    from generation.records import Prompt


class Provider(Protocol):
    """Something that answers prompts."""

    name: str
    url: str  # '' if it calls nothing
    default_model: str
    price_list: str  # see `Prices.cost`

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport) -> None: ...

    @classmethod
    def is_configured(cls, settings: Settings) -> bool:
        """Whether LLM_PROVIDER=auto may choose it."""
        ...

    @classmethod
    def lacks(cls, settings: Settings, *, is_default: bool) -> str:
        """What has to be set before it can be called, as a clause; '' if nothing."""
        ...

    @classmethod
    def address(cls, settings: Settings) -> str:
        """Where its API is; '' if it calls nothing."""
        ...

    def unknown_parameter(self, prompt: Prompt) -> str:
        """What of the prompt it has no place for, as a noun; '' if nothing."""
        ...

    async def ask(self, prompt: Prompt, model: str, idempotency_key: str) -> Answer:
        """One attempt. Raises subclasses of `LLMError`, and nothing else."""
        ...

    async def stream(
        self, prompt: Prompt, model: str, idempotency_key: str, attempt: StreamedAttempt
    ) -> Answer:
        """One attempt that hands on what comes while it comes; returns all of it."""
        ...


@dataclass(slots=True)
class Answer:
    """What one successful attempt brought."""

    text: str = ""
    usage: Usage = field(default_factory=lambda: Usage(None, None))  # None: it is not known
    model: str = ""  # by the name that the provider has for it; '': as it was asked for
    stop_reason: str = "end_turn"  # or max_tokens, stop_sequence, tool_use, refusal
    blocks: tuple[Block, ...] = ()  # empty: one block of text, or nothing
    is_plain: bool = True  # one complete text and nothing else; if not, the raw reply is kept
    raw_reply: str = ""
    original: Mapping[str, Any] | None = None  # the reply's JSON, if it came whole

    @property
    def has_tool_use(self) -> bool:
        return any(isinstance(block, ToolUse) for block in self.blocks)

    def as_partial(self) -> Reply | None:
        """What was paid for, if any of it is known."""
        if not (self.text or self.blocks or self.usage.known_tokens):
            return None
        return Reply(self.text, self.usage, self.stop_reason, blocks=self.blocks)
