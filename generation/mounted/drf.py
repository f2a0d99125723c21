"""A view of Django REST framework: generates for the user whom the project's own auth finds."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from pydantic import ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from generation.api.native.schemas import GenerateIn
from generation.asgi.event_stream import EventStream
from generation.errors import InvalidRequest
from generation.mounted.answering import problem, respond, respond_sync

_FAULTS_LISTED = 10


class GenerateView(APIView):  # type: ignore[misc]  # DRF ships no types
    """POST takes and returns what the native API does: an answer, or with `stream` its events.

    Authentication, throttles and the rest are as in your REST_FRAMEWORK settings, or as a subclass
    says. The view is synchronous, so a whole answer keeps a thread while the LLM writes, but no
    connection; a stream keeps neither under ASGI.
    """

    permission_classes = (IsAuthenticated,)
    parser_classes = (JSONParser,)

    def post(self, request: Request) -> HttpResponse | EventStream:
        try:
            body = GenerateIn.model_validate(request.data)
        except ValidationError as error:
            return problem(_invalid(error))
        plain = request._request  # noqa: SLF001  # DRF documents it
        if isinstance(plain, ASGIRequest):
            return async_to_sync(respond)(plain, request.user, body)
        return respond_sync(plain, request.user, body)


def _invalid(error: ValidationError) -> InvalidRequest:
    faults: list[dict[str, Any]] = [
        {
            "where": ".".join(("body", *map(str, fault["loc"]))),
            "why": fault["msg"].removeprefix("Value error, "),
        }
        for fault in error.errors(include_url=False, include_context=False)[:_FAULTS_LISTED]
    ]
    return InvalidRequest(f"{faults[0]['where']}: {faults[0]['why']}", faults=faults)
