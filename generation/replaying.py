"""Sending a stored generation's prompt again, to the model of somebody's choice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generation import conf, user_keys
from generation.conversation import (
    NO_OPTIONS,
    Image,
    Message,
    Options,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    parse,
)
from generation.errors import AnswerUnreadable
from generation.models import GenerationBody, GenerationLog, Profile
from generation.privacy.encryption import KeyRing
from generation.records import Grant

if TYPE_CHECKING:
    from uuid import UUID

    from generation.conversation import Part
    from generation.records import UserKey

PERMISSION = "generation.replay"
_SENT = ("prompt", "system", "conversation")
_CUT = re.compile(r"\n\[\d+ more characters are not kept\]\Z")


# Where a conversation was too long, `conversation.py` leaves a note in place of the rest.
_NOTE = re.compile(r"\[(?:\d+ earlier messages are|this message is) not kept(?: whole)?\]")


class NotReplayable(Exception):  # a state, not a fault
    """The log has not all that was sent. Its text says what is lacking, after “because”."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What is sent again."""

    of: UUID
    author_id: UserKey | None  # of the first: whose texts they are
    prompt: str | None  # None: the messages are all
    system: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    options: Options
    max_tokens: int | None
    log_content: str  # what its user's profile lets the log keep

    @property
    def grant(self) -> Grant:
        """No key's. The texts are another user's, whose choice of what is kept counts for them in
        this row, too."""
        return Grant(key_id=None, users=None, log_content=self.log_content)


def read(log: GenerationLog) -> Replay:
    """Returns what a row sent. Raises `NotReplayable`, which says what is lacking."""
    body: Any = GenerationBody.objects.filter(pk=log.pk).first()
    prompt, system, document = _texts(body)
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    options = NO_OPTIONS
    if document:
        if _CUT.search(system):
            raise NotReplayable("its system prompt was too long to be kept whole")
        messages, tools, options = _conversation(parse(document) or {})
    elif not prompt:
        raise NotReplayable("the log has no prompt of it")
    if log.status == GenerationLog.Status.SUCCEEDED and not (body.result or body.blocks):
        raise NotReplayable("it asked for no text, but e.g. for embeddings")
    first = log  # all replays of one prompt are beside it
    if log.replay_of:
        first = GenerationLog.objects.filter(pk=log.replay_of).first() or log
    profile = Profile.objects.filter(pk=first.user_id).values_list("log_content", flat=True)
    return Replay(
        of=log.replay_of or log.pk,
        author_id=user_keys.key_of(first.user_id),
        prompt=None if messages else prompt,
        system=system,
        messages=messages,
        tools=tools,
        options=options,
        max_tokens=log.max_tokens,
        log_content=profile.first() or "",
    )


def _texts(body: Any) -> list[str]:
    if body is None:
        raise NotReplayable("its texts are no longer kept")
    if body.content != "full":
        raise NotReplayable(f"the log keeps its texts only as “{body.content}”")
    ring = KeyRing.of(conf.load())
    try:
        return [
            ring.read(body.pk, name, getattr(body, name), body.encryption_key) for name in _SENT
        ]
    except AnswerUnreadable as error:
        raise NotReplayable(f"its texts can't be read: they are {error.detail}") from None


def _conversation(sent: Any) -> tuple[tuple[Message, ...], tuple[Tool, ...], Options]:
    tools = tuple(
        Tool(each["name"], each["description"], each["parameters"], each.get("strict", False))
        for each in sent.get("tools", ())
    )
    if tools and not any(tool.description or tool.parameters for tool in tools):
        raise NotReplayable("its tools may have been too long to be kept whole")
    options = sent.get("options", {})
    if "left out" in options:
        raise NotReplayable("its options were too long to be kept whole")
    messages = tuple(
        Message(each["role"], tuple(map(_part, each["content"])))
        for each in sent.get("messages", ())
    )
    stop = tuple(options.get("stop", ()))
    return messages, tools, Options(**{**options, "stop": stop})


def _part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "text":
            if _NOTE.fullmatch(part["text"]):
                raise NotReplayable("its conversation was too long to be kept whole")
            return Text(part["text"])
        case "thinking":
            return Thinking(part["text"], part["signature"], part.get("is_redacted", False))
        case "tool_use":
            return ToolUse(part["id"], part["name"], part["arguments"])
        case "tool_result":
            parts: Any = tuple(map(_part, part["content"]))
            return ToolResult(part["tool_use_id"], parts, part["is_error"])
    if "url" not in part:
        raise NotReplayable("it had an image, of which the log keeps the size and a hash")
    return Image(part["url"])
