"""The running service that a command talks to: its address, our key, its pool page."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from generation.conf.fields import check_base_url
from generation.telemetry.snapshot import PoolPage

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable

API_KEY_VARIABLE = "STACCATO_API_KEY"
ANSWER_LIMIT_S = 10
_VISIBLE = re.compile(r"[!-~]*")
_TEXT = re.compile(r"[ -~]*")


class Unusable(Exception):
    """The service does not give what was asked for; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    headers: tuple[tuple[str, str], ...]  # sent with each request

    @classmethod
    def parse(cls, url: str, api_key: str, headers: Iterable[str]) -> Service:
        """Raises `ValueError`. Its message never quotes the key."""
        try:
            url = check_base_url(url)
        except ValueError as error:
            raise ValueError(f"--url {url}: {error}") from None
        key = api_key.strip()
        if not _VISIBLE.fullmatch(key):
            raise ValueError("the API key contains a space or a control character")
        bearer = [("authorization", f"Bearer {key}")] if key else []
        return cls(url, (*map(_parse_header, headers), *bearer))

    def fetch_pool_page(self) -> PoolPage:
        """Raises `Unusable`."""
        url = f"{self.url}/api/v1/pool"
        request = urllib.request.Request(url, headers=dict(self.headers))  # noqa: S310  # http(s)
        try:
            with _OPENER.open(request, timeout=ANSWER_LIMIT_S) as answer:
                return PoolPage.parse(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise Unusable(
                f"{url} answers {error.code} {error.reason}. If the service requires API keys,"
                f" this page needs a service key: give one with --api-key or {API_KEY_VARIABLE}"
                " (manage.py apikey create NAME --all-users)"
            ) from None
        except (OSError, HTTPException) as error:
            raise Unusable(
                f"{url} can't be read ({error}): start the service, or give its address with --url"
            ) from None
        except ValueError:
            raise Unusable(f"{url} is not Staccato's pool page") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect, to https or to a login page, is an answer that the user should see."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(%(default)s)")
    parser.add_argument(
        "--api-key",
        default=os.environ.get(API_KEY_VARIABLE, ""),
        metavar="KEY",
        help="sent as `Authorization: Bearer KEY`; other users of this machine can't see it if"
        f" you set {API_KEY_VARIABLE} instead",
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be repeated"
    )


def _parse_header(header: str) -> tuple[str, str]:
    name, found, value = (part.strip() for part in header.partition(":"))
    if not found or not name or not _VISIBLE.fullmatch(name) or not _TEXT.fullmatch(value):
        raise ValueError(f"--header {name or header!r}: use 'Name: value', in visible ASCII")
    return name, value
