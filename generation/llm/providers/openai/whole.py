"""Reads a whole chat completion: OpenAI's, or that of a server that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation.llm.providers.base import Answer
from generation.llm.providers.error_bodies import read_error
from generation.llm.providers.openai.stream import STOP_REASON, ChatReader, count
from generation.llm.providers.parsing import UnusableReply, optional
from generation.llm.transcript import Transcript, kept_blocks
from generation.records import Finding

if TYPE_CHECKING:
    from generation.conversation import Block
    from generation.llm.providers.parsing import Decoration

_CLEAN_STOPS = frozenset({"end_turn", "max_tokens", "tool_use"})
_PLAIN = frozenset({"role", "content", "refusal", "annotations", "audio"})


def decode(name: str, payload: Any, decoration: Decoration) -> Answer:
    """Returns the answer, which need not be usable. Raises `UnusableReply` if there is none."""
    choices = optional(list, payload, "choices")
    if choices is None:
        raise UnusableReply(f"{name} sent something else than a chat completion")
    choice = next((choice for choice in choices if isinstance(choice, dict)), {})
    message = optional(dict, choice, "message")
    said_reason = decoration.name(choice, "finish_reason")
    word = said_reason.partition(":")[0].strip().lower()
    blocks = _read_blocks(name, message, decoration)
    answer = Answer(
        text=_read_text(message or {}, decoration),
        usage=count(optional(dict, payload, "usage"), decoration),
        model=decoration.name(payload, "model"),
        stop_reason=STOP_REASON.get(word, said_reason),
        blocks=blocks,
    )
    if answer.has_tool_use and answer.stop_reason in {"", "end_turn"}:
        answer.stop_reason = "tool_use"
    if optional(str, message, "refusal") and not answer.text and not answer.has_tool_use:
        answer.stop_reason = "refusal"
    if message is None and answer.stop_reason in _CLEAN_STOPS:  # an old API's, e.g.
        raise UnusableReply(f"{name} sent no message", Finding.EMPTY, answer)
    _refuse_half(name, choice, answer, decoration)
    answer.is_plain = (
        answer.stop_reason == "end_turn"
        and message is not None
        and isinstance(message.get("content"), str)
        and not decoration.doubtful
    )
    return answer


def _refuse_half(name: str, choice: dict[str, Any], answer: Answer, decoration: Decoration) -> None:
    """Raise `UnusableReply` for an answer that an error ended."""
    said = choice.get("error")
    error = read_error({"error": said}, 200) if said else None
    if error is None:
        return
    if answer.text and answer.stop_reason in _CLEAN_STOPS:
        decoration.doubt("error")  # it was whole all the same
        return
    raise UnusableReply(
        f"{name} broke off before its answer was complete",
        error.finding or Finding.BROKEN_OFF,
        answer,
    )


def _read_blocks(
    name: str, message: dict[str, Any] | None, decoration: Decoration
) -> tuple[Block, ...]:
    """What there is beside one text: thinking and tool calls, in the shapes of a stream's delta."""
    if message is None:
        return ()
    is_list = isinstance(message.get("content"), list)  # which may hold thinking
    if not is_list and not any(message[key] for key in message.keys() - _PLAIN):
        return ()
    transcript = Transcript()
    ChatReader(name, transcript, decoration).read_message(message)
    return kept_blocks(transcript.blocks())


def _read_text(message: dict[str, Any], decoration: Decoration) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is not None and not isinstance(content, list):
        decoration.doubt("content")
    texts = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif not isinstance(part, dict) or part.get("type") == "text":
            decoration.doubt("content")
    return "".join(texts)
