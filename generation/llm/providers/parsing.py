"""Reading what a provider sent, without trust: JSON, its fields, and excerpts for the log."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import orjson

from generation.errors import LLMBadReply

EXCERPT_CHARS = 4000
_WORD_CHARS = 200
_MOST_TOKENS = 100_000_000  # no model reads or writes more in one call
_MIN_SECRET_CHARS = 8  # a local server's dummy key, `none` say, is a common word

# Keys as Anthropic and OpenAI write them, also where an error message masks their middle.
_KEY_SHAPED = re.compile(r"sk-[\w*.-]{4,}", re.ASCII)

Kind = TypeVar("Kind")


def parse_json(body: bytes | bytearray) -> Any:
    """Raises `LLMBadReply`; absurd nesting and non-finite numbers included."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates, which a model that was cut off may well send.
        if b"\\u" not in body:
            raise LLMBadReply("the provider's reply is not JSON") from None
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise LLMBadReply("the provider's reply is not JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def take(kind: type[Kind], container: Any, key: str) -> Kind:
    """`container[key]`, which has to be there and of that kind. Raises `LLMBadReply`."""
    value = container.get(key) if isinstance(container, dict) else None
    if isinstance(value, kind):
        return value
    if value is None:
        raise LLMBadReply(f"the provider's reply has no {key}")
    raise LLMBadReply(f"{key} in the provider's reply is not {kind.__name__}")


def take_optional(kind: type[Kind], container: Any, key: str) -> Kind | None:
    """The same, but None where it is null or missing."""
    if not isinstance(container, dict) or container.get(key) is None:
        return None
    return take(kind, container, key)


def take_word(container: Any, key: str) -> str:
    """A name fit for a column of the log; '' where it is null or missing."""
    value = take_optional(str, container, key) or ""
    if len(value) > _WORD_CHARS or not value.isprintable():
        raise LLMBadReply(f"{key} in the provider's reply is not a name")
    return value


def take_count(container: Any, key: str) -> int:
    """A number of tokens."""
    value = take(int, container, key)
    if not 0 <= value <= _MOST_TOKENS or isinstance(value, bool):
        raise LLMBadReply(f"{key} in the provider's reply is absurd")
    return value


def take_optional_count(container: Any, key: str) -> int:
    """The same; 0 where it is null or missing."""
    if not isinstance(container, dict) or container.get(key) is None:
        return 0
    return take_count(container, key)


def excerpt(source: bytes | bytearray | str, secret: str, *, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of it as text that can be stored and shown: no NUL, no surrogate, no key."""
    start = source[: limit * 4 + 1000]  # cut late, so that a key across the limit is seen whole
    if isinstance(start, str):
        start = start.encode("utf-8", "replace")
    text = bytes(start).decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(secret) >= _MIN_SECRET_CHARS:
        text = _without_cut_key(_spellings(secret).sub("[key]", text), secret)
    return _KEY_SHAPED.sub("[key]", text)[:limit]


@lru_cache(maxsize=8)
def _spellings(secret: str) -> re.Pattern[str]:
    """The key, its punctuation as it is or as JSON and addresses may write it."""

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
