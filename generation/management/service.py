"""How the commands are let into the running service: what is added to each request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

if TYPE_CHECKING:
    from argparse import ArgumentParser

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
    if not options["url"].startswith(("http://", "https://")):
        raise CommandError("--url starts with http:// or https://")
    return str(options["url"]).rstrip("/")


def headers(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Raises `CommandError` for what is no header."""
    given = [_split(header) for header in options["header"]]
    if options["api_key"]:
        given.append(("authorization", f"Bearer {options['api_key']}"))
    return given


def _split(header: str) -> tuple[str, str]:
    name, found, value = header.partition(":")
    if not found or not name.strip():
        raise CommandError(f"--header {header!r}: use 'Name: value'")
    return name.strip(), value.strip()
