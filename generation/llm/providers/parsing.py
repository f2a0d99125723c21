"""Reading a provider's reply without trusting it: JSON, its fields, and excerpts for the log."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import orjson

from generation.errors import LLMBadReply, LLMError

EXCERPT_CHARS = 4000
_NAME_CHARS = 200
_MAX_TOKENS = 100_000_000  # no model reads or writes more in one call
_MIN_SECRET_CHARS = 8  # the dummy key of a local server, e.g. `none`, is a common word

# Keys as Anthropic and OpenAI write them, even if an error message masks their middle.
_KEY_SHAPED = re.compile(r"sk-[\w*.-]{4,}", re.ASCII)

Kind = TypeVar("Kind")


class UnusableReply(Exception):
    """A reply of status 2xx that is no answer; `kind` is the error that it amounts to.

    `HttpProvider` turns it into that error, together with the status and the reply.
    """

    def __init__(self, detail: str, kind: type[LLMError] = LLMBadReply) -> None:
        super().__init__(detail)
        self.kind = kind


def parse_json(body: bytes | bytearray) -> Any:
    """Raises `UnusableReply`, also for absurd nesting and non-finite numbers."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # orjson rejects lone surrogates, which a model that was cut off may well send.
        if b"\\u" not in body:
            raise UnusableReply("the provider's reply is not JSON") from None
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise UnusableReply("the provider's reply is not JSON") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)


def require(kind: type[Kind], container: Any, key: str) -> Kind:
    """Returns `container[key]`. Raises `UnusableReply` if it is missing or of another kind."""
    value = container.get(key) if isinstance(container, dict) else None
    if isinstance(value, kind):
        return value
    if value is None:
        raise UnusableReply(f"the provider's reply has no {key}")
    raise UnusableReply(f"{key} in the provider's reply is not {kind.__name__}")


def optional(kind: type[Kind], container: Any, key: str) -> Kind | None:
    """The same, but None if it is null or missing."""
    if not isinstance(container, dict) or container.get(key) is None:
        return None
    return require(kind, container, key)


def optional_name(container: Any, key: str) -> str:
    """A name that fits a column of the log; '' if it is null or missing."""
    value = optional(str, container, key) or ""
    if len(value) > _NAME_CHARS or not value.isprintable():
        raise UnusableReply(f"{key} in the provider's reply is not a name")
    return value


def require_tokens(container: Any, key: str) -> int:
    """A number of tokens."""
    value = require(int, container, key)
    if not 0 <= value <= _MAX_TOKENS or isinstance(value, bool):
        raise UnusableReply(f"{key} in the provider's reply is no plausible number of tokens")
    return value


def optional_tokens(container: Any, key: str) -> int:
    """The same; 0 if it is null or missing."""
    if not isinstance(container, dict) or container.get(key) is None:
        return 0
    return require_tokens(container, key)


def excerpt(source: bytes | bytearray | str, secret: str, *, limit: int = EXCERPT_CHARS) -> str:
    """Its beginning, as text that is safe to store and to show: no NUL, no surrogate, no key."""
    start = source[: limit * 4 + 1000]  # cut late, so that a key across the limit is seen whole
    if isinstance(start, str):
        start = start.encode("utf-8", "replace")
    text = bytes(start).decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(secret) >= _MIN_SECRET_CHARS:
        text = _without_cut_key(_spellings(secret).sub("[key]", text), secret)
    return _KEY_SHAPED.sub("[key]", text)[:limit]


@lru_cache(maxsize=8)
def _spellings(secret: str) -> re.Pattern[str]:
    """Matches the key, also if its punctuation is escaped as in JSON or in a URL."""

    def spell(char: str) -> str:
        code = ord(char)
        plain = re.escape(char)
        return char if char.isalnum() else rf"(?:\\?{plain}|%{code:02x}|\\u{code:04x})"

    return re.compile("".join(map(spell, secret)), re.IGNORECASE)


def _without_cut_key(text: str, secret: str) -> str:
    """A reply that breaks off within the key ends with most of it."""
    for length in range(len(secret) - 1, _MIN_SECRET_CHARS - 1, -1):
        if text.endswith(secret[:length]):
            return f"{text[:-length]}[key]"
    return text
