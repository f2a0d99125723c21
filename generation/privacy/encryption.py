"""Encrypts a row's texts with AES-256-GCM, and reads them. Needs the extra `[encryption]`.

Each row has a key of its own, derived from a key of the ring and the row's id, so that no key
encrypts so many texts that random nonces could repeat. A text is bound to its row and column, so
that it can't be moved to another. The row names the ring's key, because a mark within the text
could be a caller's own words.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from generation.errors import AnswerUnreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from generation.conf import Settings
    from generation.records import LogRow

# Columns that hold texts.
TEXTS = (
    *("excerpt", "prompt", "system", "conversation"),
    *("result", "blocks", "error", "raw_reply"),
)
EXCERPT_CHARS = 240
_NONCE_BYTES = 12


class KeyRing:
    """The keys that texts are encrypted with: the first writes, all read."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self.current = next(iter(self._keys), "")  # '': texts are written as they are

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        return cls(settings.body_key_ring)

    def seal(self, row: LogRow) -> LogRow:
        """Returns the row with its texts encrypted, or the row itself if there is no key."""
        if not self.current:
            return row
        plain = {name: getattr(row, name) for name in TEXTS}
        plain["excerpt"] = row.prompt[:EXCERPT_CHARS]
        sealed: dict[str, Any] = self.encrypt(row.id, plain, self.current)
        return replace(row, **sealed, encryption_key=self.current)

    def encrypt(self, log_id: UUID, texts: Mapping[str, str], key_id: str) -> dict[str, str]:
        """Returns the texts by column, under that key; '' stays '', and all do if it is ''."""
        if not key_id:
            return dict(texts)
        cipher = self._cipher(log_id, key_id)
        sealed = {}
        for name, text in texts.items():
            nonce = os.urandom(_NONCE_BYTES)
            data = cipher.encrypt(nonce, text.encode(), _bound_to(log_id, name)) if text else b""
            sealed[name] = b64encode(nonce + data).decode() if text else ""
        return sealed

    def read(self, log_id: UUID, name: str, text: str, key_id: str) -> str:
        """Returns the text of a column as it was written. Raises `AnswerUnreadable`."""
        if not text or not key_id:
            return text
        if key_id not in self._keys:
            raise AnswerUnreadable(f"encrypted with key {key_id}, which is not configured")
        from cryptography.exceptions import InvalidTag

        try:
            data = b64decode(text, validate=True)
            cipher = self._cipher(log_id, key_id)
            plain: bytes = cipher.decrypt(
                data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(log_id, name)
            )
        except (InvalidTag, ValueError):
            raise AnswerUnreadable(f"encrypted with key {key_id}, and not intact") from None
        return plain.decode()

    def reveal(self, body: Any, *names: str) -> Any:
        """Returns a `GenerationBody`, with the texts that were read from the database, or those
        named, as people may read them. Never save it. None stays None.
        """
        if body is not None and body.encryption_key:
            for name in names or TEXTS:
                shown = self.show(body.pk, name, getattr(body, name), body.encryption_key)
                setattr(body, name, shown)
        return body

    def show(self, log_id: UUID, name: str, text: str, key_id: str) -> str:
        """The same as `read()`, but what can't be read says so in brackets."""
        try:
            return self.read(log_id, name, text, key_id)
        except AnswerUnreadable as error:
            return f"[{error.detail}]"

    def _cipher(self, log_id: UUID, key_id: str) -> Any:
        # Late, because the library is needed only where texts are encrypted.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hmac.digest(self._keys[key_id], log_id.bytes, "sha256"))


def _bound_to(log_id: UUID, name: str) -> bytes:
    return b"%s %s" % (log_id.bytes, name.encode())
