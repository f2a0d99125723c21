"""A request in the bytes of HTTP/1.1."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({b"content-length", b"transfer-encoding", b"connection"})


@dataclass(frozen=True, slots=True)
class Via:
    """What a proxy needs to see of a request that it passes on."""

    is_absolute: bool
    authorization: bytes = field(repr=False)  # as in `Proxy`


DIRECT = Via(is_absolute=False, authorization=b"")


def encode(request: httpx.Request, via: Via) -> list[bytes]:
    """Returns head and body. Raises `httpx.LocalProtocolError` for a header that can't be sent.

    Call it within the call that writes: error trackers show local variables, and these hold a key.
    """
    if bad := next(_bad_names(request), None):
        raise httpx.LocalProtocolError(f"the header {bad!r} can't be sent")
    url = request.url
    target = url.raw_path
    if via.is_absolute:
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, target)
    body = request.read()
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), target)]
    if "host" not in request.headers:
        lines.append(b"host: %b\r\n" % url.netloc)
    if via.authorization:
        lines.append(b"proxy-authorization: %b\r\n" % via.authorization)
    lines += [
        b"%b: %b\r\n" % (name, value)
        for name, value in request.headers.raw
        if name.lower() not in _OURS
    ]
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    return [b"".join(lines), body] if body else [b"".join(lines)]


def _bad_names(request: httpx.Request) -> Iterator[bytes]:
    for name, value in request.headers.raw:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            yield name
