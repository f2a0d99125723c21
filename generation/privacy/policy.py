"""What of a row's texts is kept: the one place that decides it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import orjson

from generation.errors import AnswerUnreadable
from generation.privacy import redactors
from generation.privacy.encryption import KeyRing
from generation.privacy.hashing import KeyedHash
from generation.privacy.masks import CUT, MASKED_CHARS
from generation.records import LogContent
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from generation.conf import Settings
    from generation.records import LogRow

logger = throttled_logger(__name__)

HASH_PREFIX = "hmac-sha256:"
MODES: tuple[LogContent, ...] = get_args(LogContent)  # from the mildest to the strictest
_STRICTNESS: dict[str, int] = {"": -1, **{mode: rank for rank, mode in enumerate(MODES)}}
_ALWAYS_REDUCED = ("prompt", "system", "conversation", "error", "raw_reply")
_ANSWER = ("result", "blocks")
_DOCUMENTS = ("conversation", "blocks")  # JSON, which stays JSON where it is redacted
# Of what a provider calls a model or a reason to stop. Anything else might be a sentence.
_NAME = re.compile(r"[\w.:/@+-]*", re.ASCII)


class HeldResult(NamedTuple):
    """A result that was kept whole for the repetitions of its request."""

    id: UUID
    content: str
    result: str  # as it is stored
    blocks: str
    encryption_key: str


class ContentPolicy:
    """Decides for one process. Never changes a row: `apply()` returns another."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ValueError` if STACCATO_REDACTOR names nothing that can be called."""
        self._service: LogContent = settings.log_content
        self._redact = redactors.load(settings.redactor)
        self._hash = KeyedHash(settings.pepper, "staccato.content")
        self._ring = KeyRing.of(settings)

    def choose(self, profile: str, api_key: str) -> LogContent:
        """Returns the strictest of the service's mode and these; '' has no say."""
        if not profile and not api_key:
            return self._service
        strictest = max(_rank(profile), _rank(api_key), _rank(self._service))
        return MODES[strictest]

    def apply(self, row: LogRow, content: LogContent, *, is_keyed: bool) -> LogRow:
        """Returns what may be kept of a row, or the row itself if that is all. Raises nothing.

        A keyed row that succeeded keeps its result, for the repetitions of its request; `settle()`
        ends that.
        """
        if content == "full" and not self._ring.current:
            return row
        try:
            kept = row if content == "full" else self._reduce(row, content, is_keyed=is_keyed)
            return self._ring.seal(kept)
        except Exception as bug:  # noqa: BLE001  # not even a bug may cost the row, or keep a text
            # Without its message, which may quote the text.
            kind = type(bug).__name__
            logger.error("texts of a row are not kept because of a bug (%s)", kind)  # noqa: TRY400  # see above
            blank: dict[str, Any] = dict.fromkeys((*_ALWAYS_REDUCED, *_ANSWER, "stop_reason"), "")
            return replace(row, **blank, metadata={}, content="metadata")

    def settle(self, held: Sequence[HeldResult]) -> list[HeldResult]:
        """Returns the results as they are kept once their requests can't be repeated any more."""
        return [self._settle_one(each) for each in held]

    def _settle_one(self, held: HeldResult) -> HeldResult:
        try:
            plain = {
                name: self._ring.read(held.id, name, getattr(held, name), held.encryption_key)
                for name in _ANSWER
            }
        except AnswerUnreadable:
            return held._replace(result="", blocks="")  # they must not be kept whole
        kept = self._attempt(plain, MODES[max(0, _rank(held.content))])[0]
        sealed = self._ring.encrypt(held.id, kept, held.encryption_key)
        return held._replace(result=sealed["result"], blocks=sealed["blocks"])

    def _reduce(self, row: LogRow, content: LogContent, *, is_keyed: bool) -> LogRow:
        is_held = is_keyed and row.status == "succeeded"
        plain = {name: getattr(row, name) for name in _ALWAYS_REDUCED}
        if not is_held:
            plain |= {name: getattr(row, name) for name in _ANSWER}
        texts, content = self._attempt(plain, content)
        changes: dict[str, Any] = dict(texts)
        labels, _ = self._attempt(row.metadata, "redacted") if row.metadata else ({}, content)
        return replace(
            row,
            **changes,
            metadata=labels,
            content=content,
            result_held=is_held,
            model=_name(row.model),
            stop_reason=_name(row.stop_reason),
        )

    def _attempt(
        self, texts: Mapping[str, str], content: LogContent
    ) -> tuple[dict[str, str], LogContent]:
        """Returns the texts in a mode, and that mode; hashed if the redactor fails."""
        if content == "redacted":
            try:
                return self._redact_each(texts), content
            except Exception as error:  # noqa: BLE001  # it may be anybody's code
                metrics.REDACTOR_FAILURES.inc()
                # Without its message, which may quote the text.
                kind = type(error).__name__
                logger.error("the redactor failed (%s): the texts are kept as hashes", kind)  # noqa: TRY400  # see above
                content = "hashed"
        if content == "hashed":
            return _each(self._digest, texts), content
        return dict.fromkeys(texts, ""), content

    def _redact_each(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {
            name: self._redact_document(text) if name in _DOCUMENTS else self._redact(text)
            for name, text in texts.items()
            if text
        } | {name: "" for name, text in texts.items() if not text}

    def _redact_document(self, text: str) -> str:
        """Redact the strings of a JSON document, up to as much as one text may have."""
        room = MASKED_CHARS

        def redact(value: Any) -> Any:
            nonlocal room
            match value:
                case str():
                    room -= len(value)
                    return self._redact(value) if room >= 0 else CUT
                case dict():
                    return {name: redact(each) for name, each in value.items()}
                case list():
                    return [redact(each) for each in value]
            return value

        return orjson.dumps(redact(orjson.loads(text))).decode()

    def _digest(self, text: str) -> str:
        return HASH_PREFIX + self._hash(text.encode("utf-8", "surrogatepass"))


def _each(change: Callable[[str], str], texts: Mapping[str, str]) -> dict[str, str]:
    """An empty text stays empty: that there was none reveals nothing else."""
    return {name: change(text) if text else "" for name, text in texts.items()}


def _name(text: str) -> str:
    return text if _NAME.fullmatch(text) else ""


def _rank(mode: str) -> int:
    """What can't be read, e.g. after a newer version wrote it, counts as the strictest."""
    return _STRICTNESS.get(mode, len(MODES) - 1)
