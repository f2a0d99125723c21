"""The request object that our handlers pass to views."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest

from generation.asgi.head import Head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.records import Grant
    from generation.runtime.admission import Place

HEAD = "staccato.head"  # its key in the ASGI scope


class Request(ASGIRequest):
    """Django's request, with what the entrance of a lean view has found out about it."""

    grant: Grant  # what the caller's API key allows; set by an entrance
    place: Place  # the room for one generation; set by an entrance

    def __init__(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> None:
        super().__init__(scope, body_file)
        self.head: Head = scope[HEAD]
