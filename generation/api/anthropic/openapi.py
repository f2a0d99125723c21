"""What the documentation says of Anthropic's protocol: the members that we read, and examples."""

from __future__ import annotations

from typing import Any

from generation.api import describing
from generation.api.anthropic import errors

_REQUEST = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
}
_MESSAGES: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "description": "As Anthropic documents it. What is not listed here goes to Anthropic as it is,"
    " and is refused by name where another provider answers.",
    "properties": {
        "model": {"type": "string", "description": "One that `GET /v1/models` lists."},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": ["user", "assistant"]},
                    "content": {"description": "A string, or an array of blocks."},
                },
            },
        },
        "max_tokens": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Default: the profile's, or LLM_MAX_TOKENS.",
        },
        "system": {"description": "Default: the system prompt of the user's profile."},
        "stream": {"type": ["boolean", "null"]},
        "tools": {"type": ["array", "null"], "items": {"type": "object"}},
    },
}
_MESSAGE = {
    "id": "msg_019a9b7e3f1c7c528d0e5b1f6a2c9e44",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "Air scatters blue light more."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 49,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 12,
    },
}
_EVENTS = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    '{"type":"text_delta","text":"Air "}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_VERSIONS: list[dict[str, Any]] = [
    {
        "in": "header",
        "name": name,
        "description": "Passed on to Anthropic.",
        "schema": {"type": "string", "maxLength": 2000, "pattern": "^[\\w.,:; -]*$"},
    }
    for name in ("anthropic-version", "anthropic-beta")
]


def describe_messages() -> dict[str, Any]:
    """`openapi_extra` of the messages' operation."""
    return {
        "parameters": [*describing.HEADERS, *_VERSIONS],
        "requestBody": describing.request_body(_MESSAGES, _REQUEST),
        "responses": {
            200: describing.answer(_MESSAGE, _EVENTS),
            **describing.refusals(errors.document, errors.status_of),
        },
    }


def describe_count() -> dict[str, Any]:
    return {
        "parameters": _VERSIONS,
        "requestBody": describing.request_body(_MESSAGES, _REQUEST),
        "responses": {
            200: describing.answer({"input_tokens": 49}),
            **describing.refusals(errors.document, errors.status_of),
        },
    }
