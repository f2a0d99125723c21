"""What the documentation says of OpenAI's protocol: the members that we read, and examples."""

from __future__ import annotations

from typing import Any

from generation import errors as kinds
from generation.api import describing
from generation.api.openai import errors

_REQUEST = {
    "model": "gpt-6-luna",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "max_completion_tokens": 300,
}
_CHAT: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "description": "As OpenAI documents it. What is not listed here goes to a provider of the same"
    " protocol as it is, and is refused by name where another one answers.",
    "properties": {
        "model": {"type": "string", "description": "One that `GET /v1/models` lists."},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
                    "content": {"description": "A string, or an array of parts."},
                },
            },
        },
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
        "max_tokens": {"type": ["integer", "null"], "minimum": 1},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {
            "type": ["object", "null"],
            "properties": {"include_usage": {"type": ["boolean", "null"]}},
        },
        "n": {"enum": [1, None], "description": "One answer is made for each request."},
        "tools": {"type": ["array", "null"], "items": {"type": "object"}},
    },
}
_RESPONSES: dict[str, Any] = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "description": "One that `GET /v1/models` lists."},
        "input": {"description": "A string, or an array of items."},
        "instructions": {"type": ["string", "null"]},
        "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
        "background": {"type": ["boolean", "null"], "description": "Go on without the client."},
        "store": {
            "type": ["boolean", "null"],
            "description": "True goes with `background` only.",
        },
        "stream": {"type": ["boolean", "null"]},
        "tools": {"type": ["array", "null"], "items": {"type": "object"}},
    },
}
_EMBEDDINGS: dict[str, Any] = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "description": "One that `GET /v1/models` lists."},
        "input": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {}},
            ],
            "description": "A text, or an array of texts or of tokens.",
        },
    },
}
_USAGE = {"prompt_tokens": 49, "completion_tokens": 12, "total_tokens": 61}
_NAME = "chatcmpl-019a9b7e-3f1c-7c52-8d0e-5b1f6a2c9e44"
_COMPLETION = {
    "id": _NAME,
    "object": "chat.completion",
    "created": 1764273600,
    "model": "gpt-6-luna",
    "choices": [
        {
            "logprobs": None,
            "index": 0,
            "message": {"role": "assistant", "content": "Air scatters blue light more."},
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}
_CHUNKS = (
    'data: {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1764273600,"model":'
    '"gpt-6-luna","choices":[{"index":0,"delta":{"content":"Air "},"finish_reason":null,'
    '"logprobs":null}]}\n\ndata: [DONE]\n\n'
)
_PART = {"type": "output_text", "text": "Air scatters blue light more.", "annotations": []}
_MESSAGE = {"type": "message", "role": "assistant", "status": "completed", "content": [_PART]}
_RESPONSE = {
    "id": "resp_019a9b7e3f1c7c528d0e5b1f6a2c9e44",
    "object": "response",
    "status": "completed",
    "model": "gpt-6-luna",
    "output": [_MESSAGE],
}
_DELTA = 'event: response.output_text.delta\ndata: {"delta":"Air ",…}\n\n'
_MODEL = {"id": "gpt-6-luna", "object": "model", "created": 1767225600, "owned_by": "openai"}
_OF_MODELS = (
    kinds.Unauthorized("the API key is unknown or revoked"),
    kinds.CrossSite("this request comes from another site's page"),
    kinds.ModelNotAllowed("gpt-x is not offered here; GET /v1/models lists what is"),
    kinds.DatabaseUnavailable("the database can't be reached", retry_after=1),
)


def describe_chat() -> dict[str, Any]:
    """`openapi_extra` of the chat completions' operation."""
    return {
        "parameters": describing.HEADERS,
        "requestBody": describing.request_body(_CHAT, _REQUEST),
        "responses": {
            200: describing.answer(_COMPLETION, _CHUNKS),
            **describing.refusals(errors.document, errors.status_of),
        },
    }


def describe_responses() -> dict[str, Any]:
    request = {"model": "gpt-6-luna", "input": "Why is the sky blue?", "store": False}
    return {
        "parameters": describing.HEADERS,
        "requestBody": describing.request_body(_RESPONSES, request),
        "responses": {
            200: describing.answer(_RESPONSE, _DELTA),
            **describing.refusals(errors.document, errors.status_of),
        },
    }


_OF_RESPONSES = (
    kinds.NotFound("there is no such response"),
    kinds.InvalidRequest("only a background response can be cancelled"),
    kinds.Unauthorized("the API key is unknown or revoked"),
    kinds.CrossSite("this request comes from another site's page"),
    kinds.DatabaseUnavailable("the database can't be reached", retry_after=1),
)


def describe_retrieval() -> dict[str, Any]:
    return {
        "parameters": [
            {"in": "query", "name": "stream", "schema": {"enum": ["true", "false"]}},
            {
                "in": "query",
                "name": "starting_after",
                "description": "The `sequence_number` of the last event that has arrived.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999_999},
            },
        ],
        "responses": {
            200: describing.answer(_RESPONSE, _DELTA),
            **describing.refusals(errors.document, errors.status_of, _OF_RESPONSES),
        },
    }


def describe_cancellation() -> dict[str, Any]:
    return {
        "responses": {
            200: describing.answer({**_RESPONSE, "status": "cancelled"}),
            **describing.refusals(errors.document, errors.status_of, _OF_RESPONSES),
        },
    }


def describe_embeddings() -> dict[str, Any]:
    request = {"model": "text-embedding-4-small", "input": ["Why is the sky blue?"]}
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
    answer = {
        "object": "list",
        "data": [vector],
        "model": "text-embedding-4-small",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    return {
        "requestBody": describing.request_body(_EMBEDDINGS, request),
        "responses": {
            200: describing.answer(answer),
            **describing.refusals(errors.document, errors.status_of),
        },
    }


def describe_models() -> dict[str, Any]:
    return {
        "responses": {
            200: describing.answer({"object": "list", "data": [_MODEL]}),
            **describing.refusals(errors.document, errors.status_of, _OF_MODELS),
        }
    }


def describe_model() -> dict[str, Any]:
    return {
        "responses": {
            200: describing.answer(_MODEL),
            **describing.refusals(errors.document, errors.status_of, _OF_MODELS),
        }
    }
