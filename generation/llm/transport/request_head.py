"""A request in the bytes of HTTP/1.1."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import httpx

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
    bad = _find_bad(request)
    if bad is not None:
        raise httpx.LocalProtocolError(f"the header {bad!r} can't be sent")
    url = request.url
    target = url.raw_path
    if via.is_absolute:
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, target)
    body = request.read()
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), target)]
    if via.authorization:
        lines.append(b"proxy-authorization: %b\r\n" % via.authorization)
    lines += [_line(name, value) or b"" for name, value in request.headers.raw]
    lines.append(b"content-length: %d\r\n" % len(body))
    head = b"".join(lines)
    if b"\r\nhost: " not in head.lower():
        head += b"host: %b\r\n" % url.netloc
    head += b"\r\n"
    return [head, body] if body else [head]


def _find_bad(request: httpx.Request) -> bytes | None:
    """Returns the name of a header that can't be sent."""
    for name, value in request.headers.raw:
        if _line(name, value) is None:
            return name
    return None


@lru_cache(maxsize=256)  # nearly all headers are those of the request before
def _line(name: bytes, value: bytes) -> bytes | None:
    """Returns a header as it is sent: not at all if it is ours, and None if it can't be."""
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        return None
    return b"" if name.lower() in _OURS else b"%b: %b\r\n" % (name, value)
