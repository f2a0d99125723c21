"""How the commands are let into the running service: what is added to each request."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.core.management.base import CommandError

if TYPE_CHECKING:
    from argparse import ArgumentParser

_VISIBLE = re.compile(r"[!-~]*")
_TEXT = re.compile(r"[ -~]*")
API_KEY_VARIABLE = "STACCATO_API_KEY"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(%(default)s)")
    parser.add_argument(
        "--api-key",
        default=os.environ.get(API_KEY_VARIABLE, ""),
        metavar="KEY",
        help=f"sent as `Authorization: Bearer KEY`; better given as {API_KEY_VARIABLE}",
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be repeated"
    )


def url(options: dict[str, Any]) -> str:
    """Raises `CommandError` for what is no address."""
    given = str(options["url"])
    try:
        parts = urlsplit(given)
        _ = parts.port  # raises where it is not a port
    except ValueError as error:
        raise CommandError(f"--url {given}: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CommandError("--url starts with http:// or https:// and names a host")
    return given.rstrip("/")


def headers(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Raises `CommandError` for what is no header; a key is never quoted."""
    given = [_split(header) for header in options["header"]]
    key = options["api_key"].strip()
    if not _VISIBLE.fullmatch(key):
        raise CommandError("the API key holds what no key holds: a space or a control character")
    if key:
        given.append(("authorization", f"Bearer {key}"))
    return given


def _split(header: str) -> tuple[str, str]:
    name, found, value = (part.strip() for part in header.partition(":"))
    if not found or not name or not _VISIBLE.fullmatch(name) or not _TEXT.fullmatch(value):
        raise CommandError(f"--header {name or header!r}: use 'Name: value', in visible ASCII")
    return name, value
