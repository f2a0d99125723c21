"""A provider that answers in both dialects, and as the prompt asks: `scenario:name`."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import Behaviour, Ending, Exchange, hangs, says, streams

OPENAI = OpenAIDialect()
ANTHROPIC = AnthropicDialect()
CALLS = (("c1", "weather", {"city": "Oslo"}), ("c2", "clock", {"zone": "CET"}))
_JSON = "application/json"
STRUCTURED = '{"colour": "blue", "score": 3}'


async def behave(exchange: Exchange) -> None:
    """Streams where it is asked to."""
    asked = exchange.json
    found = re.search(rb"scenario:(\w+)", exchange.body)
    assert found is not None, exchange.body
    scenario = found[1].decode()
    if scenario == "tools" and re.search(rb'"tool_result"|"role": ?"tool"', exchange.body):
        scenario = "tools_done"
    speak = _openai if "chat/completions" in exchange.path else _anthropic
    await speak(scenario, is_streamed=bool(asked.get("stream")))(exchange)


def _text(scenario: str) -> str:
    return {"structured": STRUCTURED, "tools_done": "Rain, at noon."}.get(scenario, "Hello, world.")


def _halves(text: str) -> tuple[str, str]:
    return text[:5], text[5:]


def _openai(scenario: str, *, is_streamed: bool) -> Behaviour:
    if scenario == "limited":
        return says(429, OPENAI.error("limited"), retry_after="7", content_type=_JSON)
    if scenario == "too_long":
        words = "Input tokens exceed the configured limit of 100 tokens."
        return says(400, OPENAI.error("caller", words), content_type=_JSON)
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    head: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": OPENAI.model, "usage": usage}
    head["object"] = "chat.completion"
    calls: list[dict[str, Any]] = [
        {"id": key, "type": "function", "function": {"name": n, "arguments": json.dumps(given)}}
        for key, n, given in CALLS
    ]
    if not is_streamed:
        message: Any = {"role": "assistant", "content": _text(scenario)}
        if scenario == "tools":
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        reason = "tool_calls" if scenario == "tools" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return says(200, {**head, "choices": [choice]}, content_type=_JSON)
    first, second = map(_chunk, ({"content": half} for half in _halves(_text(scenario))))
    pieces = [_chunk({"role": "assistant", "content": ""})]
    if scenario == "tools":
        for index, call in enumerate(calls):
            function = call["function"]
            begun = {**call, "index": index, "function": {**function, "arguments": ""}}
            more = {"index": index, "function": {"arguments": function["arguments"]}}
            pieces += [_chunk({"tool_calls": [begun]}), _chunk({"tool_calls": [more]})]
        pieces.append(_chunk({}, "tool_calls"))
    elif scenario == "broken":
        return streams(*pieces, first, OPENAI.event(**OPENAI.error("overloaded")), Ending.TORN)
    elif scenario == "leave":
        return _endless(*pieces, first)
    else:
        pieces += [first, second, _chunk({}, "stop")]
    last = OPENAI.event(**_CHUNK, choices=[], usage=usage)
    return streams(*pieces, last, b"data: [DONE]\n\n")


_CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": OPENAI.model,
}


def _chunk(delta: Any, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return OPENAI.event(**_CHUNK, choices=[choice])


def _anthropic(scenario: str, *, is_streamed: bool) -> Behaviour:
    if scenario == "limited":
        return says(429, ANTHROPIC.error("limited"), retry_after="7", content_type=_JSON)
    if scenario == "too_long":
        return says(
            400, ANTHROPIC.error("caller", "prompt is too long: 101 > 100"), content_type=_JSON
        )
    blocks: list[dict[str, Any]] = [
        {"type": "tool_use", "id": key, "name": name, "input": given} for key, name, given in CALLS
    ]
    if scenario != "tools":
        blocks = [{"type": "text", "text": _text(scenario)}]
    stop = "tool_use" if scenario == "tools" else "end_turn"
    head: dict[str, Any] = {"id": "msg_1", "role": "assistant", "stop_sequence": None}
    if not is_streamed:
        reply = ANTHROPIC.answer(content=blocks, stop_reason=stop, **head)
        return says(200, reply, content_type=_JSON)
    start = {"input_tokens": 10, "output_tokens": 1}
    opening = ANTHROPIC.answer(content=[], stop_reason=None, usage=start, **head)
    pieces = [ANTHROPIC.event("message_start", message=opening)]
    for index, block in enumerate(blocks):
        is_text = block["type"] == "text"
        empty = {**block, "text": ""} if is_text else {**block, "input": {}}
        pieces.append(ANTHROPIC.event("content_block_start", index=index, content_block=empty))
        written = block["text"] if is_text else json.dumps(block["input"])
        kind, name = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")
        pieces += [
            ANTHROPIC.event("content_block_delta", index=index, delta={"type": kind, name: half})
            for half in _halves(written)
        ]
        pieces.append(ANTHROPIC.event("content_block_stop", index=index))
    if scenario == "broken":
        return streams(*pieces[:3], ANTHROPIC.error_event("overloaded"), Ending.TORN)
    if scenario == "leave":
        return _endless(*pieces[:3])
    usage = {"input_tokens": 10, "output_tokens": 20}
    delta = {"stop_reason": stop, "stop_sequence": None}
    pieces.append(ANTHROPIC.event("message_delta", delta=delta, usage=usage))
    return streams(*pieces, ANTHROPIC.event("message_stop"))


def _endless(*pieces: bytes) -> Behaviour:
    """Falls silent after its pieces, until the client leaves."""
    begin = streams(*pieces, Ending.SILENCE)

    async def behave(exchange: Exchange) -> None:
        await begin(exchange)
        await hangs(exchange)

    return behave
