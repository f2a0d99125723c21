"""The head of a request: stamped on arrival, judged before anything else is."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from generation.errors import BadRequest, HeadersTooLarge, UnsupportedMediaType, UriTooLong

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Scope = MutableMapping[str, Any]

MAX_HEADER_BYTES = 32_768  # of all headers together, names included
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8_192  # path and query
MAX_CONTENT_TYPE_BYTES = 500
MAX_LENGTH_DIGITS = 20  # of a Content-Length; Python refuses to read very long numbers
# `curl -d` claims the second for any body; ours is read as JSON all the same.
JSON_TYPES = frozenset({b"application/json", b"application/x-www-form-urlencoded"})
# What they say decides who is served, and what.
SINGLE_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"x-api-key",
        b"x-request-id",
    }
)

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


class Head:
    """A request's headers, its arrival and its id."""

    __slots__ = (
        "_pairs",
        "_target_bytes",
        "_version",
        "arrived_at",
        "has_body",
        "headers",
        "length",
        "request_id",
        "started",
    )

    def __init__(self, scope: Scope) -> None:
        self.arrived_at = datetime.now(UTC)
        self.started = time.monotonic()
        self._target_bytes = len(scope.get("raw_path") or scope["path"]) + len(
            scope.get("query_string", b"")
        )
        self._version = scope.get("http_version")
        self._pairs = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self._pairs)
        self.request_id = _request_id(self.headers.get(b"x-request-id", b""))
        length = self.headers.get(b"content-length", b"0")
        is_readable = length.isdigit() and len(length) <= MAX_LENGTH_DIGITS
        self.length = int(length) if is_readable else None  # None: unknown, so perhaps endless
        if b"transfer-encoding" in self.headers:
            self.length = None
        self.has_body = self.length != 0

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after its answer, because the client asks so."""
        return self._version == "1.0" or b"close" in self.headers.get(b"connection", b"").lower()

    def check(self) -> None:
        """Raises `UriTooLong`, `HeadersTooLarge`, `UnsupportedMediaType` or `BadRequest`."""
        if self._target_bytes > MAX_TARGET_BYTES:
            raise UriTooLong(f"path and query are longer than {MAX_TARGET_BYTES} bytes")
        size = sum(map(len, chain.from_iterable(self._pairs)))
        if size > MAX_HEADER_BYTES or len(self._pairs) > MAX_HEADERS:
            raise HeadersTooLarge(
                f"there are more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them"
            )
        if len(self.headers) < len(self._pairs):
            self._refuse_repeated()
        if len(self.headers.get(b"content-type", b"")) > MAX_CONTENT_TYPE_BYTES:
            raise UnsupportedMediaType(
                f"the Content-Type is longer than {MAX_CONTENT_TYPE_BYTES} bytes"
            )

    def _refuse_repeated(self) -> None:
        """Django joins repeated headers with a comma, others take the first, and some the last."""
        names = [name for name, _ in self._pairs if name in SINGLE_HEADERS]
        for name in names:
            if names.count(name) > 1:
                raise BadRequest(f"the request has more than one {name.decode().title()} header")

    def check_json(self) -> None:
        """Raises `UnsupportedMediaType` for a body that claims to be anything else.

        A body without a Content-Type counts as JSON: a browser never sends one unless a script
        of ours asks it to.
        """
        if not self.has_body:
            return
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType("the body is compressed; send it uncompressed")
        kind, _, parameters = self.headers.get(b"content-type", b"").lower().partition(b";")
        kind = kind.strip()
        if kind and kind not in JSON_TYPES and not kind.endswith(b"+json"):
            raise UnsupportedMediaType("the body's Content-Type is not application/json")
        if b"charset" in parameters and b"utf-8" not in parameters and b"utf8" not in parameters:
            raise UnsupportedMediaType("JSON is UTF-8, but the Content-Type names another charset")


def _request_id(given: bytes) -> str:
    """The client's X-Request-ID where it is 1 to 128 visible ASCII characters, else a new one."""
    if _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    # Uniqueness is enough, and the system's randomness costs several times as much.
    return f"{random.getrandbits(128):032x}"
