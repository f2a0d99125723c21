"""Reading a provider's reply without trusting it: JSON, its fields, and excerpts for the log."""

from __future__ import annotations

import json
import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import orjson

from generation.privacy.masks import KEY_SHAPED
from generation.records import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.llm.providers.base import Answer

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259 §8.1: a reader may ignore it
BROKEN_OFF = "error"  # the stop reason of an answer without an end
GZIP = b"\x1f\x8b"  # no JSON starts so

EXCERPT_CHARS = 4000
_NAME_CHARS = 200
_START_BYTES = 1000
_QUOTED_CHARS = 12  # what a sentence shares with a prompt by chance is shorter
_MAX_TOKENS = 100_000_000  # no model reads or writes more in one call
_MIN_SECRET_CHARS = 8  # the dummy key of a local server, e.g. `none`, is a common word

Kind = TypeVar("Kind")


class UnusableReply(Exception):
    """A reply of status 2xx that is no answer, and what it shows.

    `HttpProvider` turns it into an error, together with the status and the reply. `answer` holds
    what was paid for all the same.
    """

    def __init__(
        self, detail: str, finding: Finding = Finding.UNREADABLE, answer: Answer | None = None
    ) -> None:
        super().__init__(detail)
        self.finding = finding
        self.answer = answer


def parse_json(body: bytes | bytearray) -> Any:
    """Raises `UnusableReply`, also for absurd nesting and non-finite numbers."""
    text = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson rejects lone surrogates, which a model that was cut off may well send.
        if b"\\u" not in text:
            raise _not_json(text) from None
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise _not_json(text) from None


def require_text(name: str, answer: Answer) -> Answer:
    """Returns the provider's answer. Raises `UnusableReply` if it is none."""
    if answer.stop_reason == BROKEN_OFF:
        raise UnusableReply(
            f"{name} broke off before its answer was complete", Finding.BROKEN_OFF, answer
        )
    if answer.stop_reason == "refusal":
        raise UnusableReply(f"{name} declines to answer this prompt", Finding.DECLINED, answer)
    if answer.text or answer.has_tool_use:
        return answer
    if answer.stop_reason == "max_tokens":
        # Thinking counts as output, so a small limit can end before the text.
        raise UnusableReply(
            f"{name} reached max_tokens before any text; allow more tokens", Finding.CUT_OFF, answer
        )
    raise UnusableReply(f"{name} sent an answer without text", Finding.EMPTY, answer)


def unpack(body: bytearray, max_bytes: int) -> bytes:
    """Returns what a gzip body holds. Raises `UnusableReply` beyond `max_bytes`: it is a bomb."""
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: gzip's header
    try:
        plain = unpacking.decompress(body, max_bytes + 1)
    except zlib.error:
        raise UnusableReply("is broken gzip") from None
    if len(plain) > max_bytes:
        raise UnusableReply(f"is compressed and holds more than {max_bytes} bytes")
    return plain


def _not_json(body: bytes | bytearray) -> UnusableReply:
    start = body[:_START_BYTES].lstrip()
    if start.startswith(b"<"):
        return UnusableReply("the provider's reply is a web page", Finding.NOT_THE_API)
    may_hold_an_answer = start.startswith((b"{", b"["))
    return UnusableReply(
        "the provider's reply is not JSON",
        Finding.UNREADABLE if may_hold_an_answer else Finding.GARBLED,
    )


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)


def optional(kind: type[Kind], container: Any, key: str) -> Kind | None:
    """Returns `container[key]`; None if it is missing or of another kind."""
    value = container.get(key) if isinstance(container, dict) else None
    return value if isinstance(value, kind) else None


class Decoration:
    """Reads what is beside the text of an answer: names, counts.

    The text is what was paid for, so nothing beside it makes a reply unusable. What can't be read
    is unknown, what is too long is cut, and `doubtful` lists such parts.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact  # of a secret
        self.doubtful: list[str] = []

    def doubt(self, part: str) -> None:
        if part not in self.doubtful:
            self.doubtful.append(part)

    def name(self, container: Any, key: str) -> str:
        """A name that fits a column of the log; '' if it is null or missing."""
        value = container.get(key) if isinstance(container, dict) else None
        if value is None:
            return ""
        if not isinstance(value, str):
            self.doubt(key)
            return ""
        if len(value) <= _NAME_CHARS and value.isprintable():
            return value
        self.doubt(key)
        return self._redact("".join(filter(str.isprintable, value)))[:_NAME_CHARS]

    def tokens(self, container: Any, key: str) -> int | None:
        """A number of tokens; None if it is missing or can't be true."""
        value = container.get(key) if isinstance(container, dict) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS:
            return value
        self.doubt("usage")
        return None

    def part_of_tokens(self, container: Any, key: str) -> int:
        """A number of tokens that most replies leave out; 0 if it is null or missing."""
        if not isinstance(container, dict) or container.get(key) is None:
            return 0
        return self.tokens(container, key) or 0


def excerpt(source: bytes | bytearray | str, secret: str, *, limit: int = EXCERPT_CHARS) -> str:
    """Its beginning, as text that is safe to store and to show: no NUL, no surrogate, no key."""
    start = source[: limit * 4 + 1000]  # cut late, so that a key across the limit is seen whole
    if isinstance(start, str):
        start = start.encode("utf-8", "replace")
    text = bytes(start).decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(secret) >= _MIN_SECRET_CHARS:
        text = _without_cut_key(_spellings(secret).sub("[key]", text), secret)
    return KEY_SHAPED.sub("[key]", text)[:limit]


def without_quotes(sentence: str, *texts: str) -> str:
    """The sentence without what it quotes of these texts, which are a caller's."""
    kept, at = [], 0
    while at < len(sentence):
        end = at + _QUOTED_CHARS
        if end > len(sentence) or not any(sentence[at:end] in text for text in texts):
            kept.append(sentence[at])
            at += 1
            continue
        while end < len(sentence) and any(sentence[at : end + 1] in text for text in texts):
            end += 1
        kept.append("[quoted]")
        at = end
    return "".join(kept)


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
