"""django-ninja, as every API dialect uses it: strict JSON, lean views, errors raised."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import ninja
import orjson
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from ninja.errors import HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema
from ninja.parser import Parser
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from generation.api.health import not_found
from generation.asgi.lean import adopt
from generation.errors import BadRequest, InvalidRequest, MalformedBody, StaccatoError

_UNUSED = HttpResponse()
FAULTS_LISTED = 10
_NAME_CHARS = 100  # of a member's name in a fault, since it is the caller's own
# RFC 8259 §8.1: a reader may ignore it, and some clients send one.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Object(BaseModel):
    """A JSON object in a request. Few of its faults are listed: 100,000 would take seconds."""

    model_config = ConfigDict(extra="forbid")
    _what: ClassVar[str] = "this"

    @model_validator(mode="before")
    @classmethod
    def _check_members(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            raise PydanticCustomError("object", f"{cls._what} must be a JSON object")
        known = cls.model_fields
        if len(given) <= len(known) + FAULTS_LISTED:
            return given
        unknown = itertools.islice((name for name in given if name not in known), FAULTS_LISTED)
        return {name: given[name] for name in (*unknown, *(known.keys() & given.keys()))}


class Body(Object):
    """The request's own."""

    _what: ClassVar[str] = "the body"


class JSONParser(Parser):
    """orjson is strict where the standard library is lenient: depth, surrogates, NaN."""

    def parse_body(self, request: HttpRequest) -> Any:
        try:
            return orjson.loads(request.body.removeprefix(_BYTE_ORDER_MARK))
        except orjson.JSONDecodeError as error:
            if "surrogate in string" in str(error):  # an escape such as \\ud800, alone
                raise InvalidRequest(
                    "the body contains a lone surrogate, which is not valid text"
                ) from None
            raise MalformedBody(f"the body is not valid JSON: {error}") from None


# Either will do, for each operation that does not say otherwise. The entrances authenticate, before
# a body is read: ninja's own `auth` would take 2 % of a generation to find nothing left to check.
_SECURITY: list[dict[str, list[str]]] = [{"Bearer": []}, {"XApiKey": []}]
_SECURITY_SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the service."},
    "XApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key, for clients that can't set Authorization.",
    },
}


class API(ninja.NinjaAPI):
    """Its views are lean where `@lean` says so, and its errors are raised: `asgi` renders them."""

    @property
    def urls(self) -> tuple[list[Any], str, str]:
        patterns, app_name, namespace = super().urls
        router = self.default_router
        views = {
            self.get_operation_url_name(operation, router): operation.view_func
            for path_view in router.path_operations.values()
            for operation in path_view.operations
        }
        for pattern in patterns:
            if isinstance(pattern, URLPattern) and pattern.name in views:
                pattern.callback = adopt(views[pattern.name], pattern.callback)
            elif isinstance(pattern, URLPattern) and pattern.name == "api-root":
                pattern.callback = not_found  # ninja's own is a page of Django's
        return patterns, app_name, namespace

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        schema = super().get_openapi_schema(**options)
        schema["security"] = _SECURITY
        schema["components"]["securitySchemes"] = _SECURITY_SCHEMES
        return schema

    def on_exception(self, request: HttpRequest, exc: Any) -> Any:  # noqa: ARG002  # the base's signature
        """Raises the `StaccatoError` that one of ninja's own errors stands for."""
        raise to_staccato_error(exc)

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002  # the base's signature
        """Ninja would make one per request, for views that set headers on it; ours never do."""
        return _UNUSED


def to_staccato_error(error: Exception) -> Exception:
    """The error as one of ours; a bug stays as it is."""
    if isinstance(error, ValidationError):
        return _invalid_fields(error)
    if isinstance(error, HttpError):
        # Ninja wraps what the parser raises. Raised again, that would refer back to the wrapping.
        cause = error.__cause__
        error.__cause__ = error.__context__ = None
        return cause if isinstance(cause, StaccatoError) else BadRequest(str(error))
    return error


def _invalid_fields(error: ValidationError) -> InvalidRequest:
    faults = [
        {"where": _field_path(fault["loc"]), "why": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors[:FAULTS_LISTED]
    ]
    return InvalidRequest(f"{faults[0]['where']}: {faults[0]['why']}", faults=faults)


def _field_path(location: tuple[str | int, ...]) -> str:
    """("body", "body", "input") → body.input: ninja names the source, then the parameter."""
    source, _parameter, *inner = location if location[0] == "body" else (location[0], *location)
    return ".".join(str(part)[:_NAME_CHARS] for part in (source, *inner))
