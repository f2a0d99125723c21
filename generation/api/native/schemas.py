"""What the native API takes and returns."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

import ninja
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from generation.api.base import Body
from generation.api.native import examples
from generation.storable import is_storable

MAX_VARIABLES = 100
MAX_METADATA = 16
_BIGINT_MAX = 2**63 - 1
_USER_ID = re.compile(r"0|[1-9][0-9]{0,18}")


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("holds a NUL character, which can't be stored")
    return text


_STORABLE = AfterValidator(_storable)
_NO_NUL = Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
Text = Annotated[str, _STORABLE, _NO_NUL]
Name = Annotated[Text, Field(max_length=100)]
Label = Annotated[str, Field(min_length=1, max_length=64), _STORABLE, _NO_NUL]
LabelValue = Annotated[str, Field(max_length=512), _STORABLE, _NO_NUL]


def _at_most(limit: int, what: str) -> BeforeValidator:
    """Refuses too many members before each is looked at."""

    def check(given: object) -> object:
        if isinstance(given, dict) and len(given) > limit:
            raise PydanticCustomError("too_many", f"there are more than {limit} {what}")
        return given

    return BeforeValidator(check)


def _one_spelling(given: object) -> object:
    """Otherwise ' 1', '+1', '01', '1_0' and '1.0' would name users as well."""
    if isinstance(given, str) and not _USER_ID.fullmatch(given):
        raise PydanticCustomError(
            "user_id", "a user's key is a whole number, without sign or leading zeros"
        )
    return given


UserId = Annotated[
    int,
    BeforeValidator(_one_spelling),
    ninja.Path(ge=1, le=_BIGINT_MAX, description="The user's key."),
]


class GenerateIn(Body):
    """Everything is optional: an empty body sends the user's template as it stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REQUEST]})

    input: Text = Field("", description="Fills `$input`, or follows the template.")
    variables: Annotated[dict[Name, Text], _at_most(MAX_VARIABLES, "variables")] = Field(
        default_factory=dict, max_length=MAX_VARIABLES, description="Fill the template's `$name`s."
    )
    provider: Text = Field("", max_length=32, description="One that the service offers.")
    model: Text = Field("", max_length=200, description="One that the service offers.")
    max_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="Longest answer, in tokens."
    )
    metadata: Annotated[dict[Label, LabelValue], _at_most(MAX_METADATA, "members")] = Field(
        default_factory=dict,
        max_length=MAX_METADATA,
        description="Your own names and values for the log row, e.g. a ticket's number. The LLM"
        " does not get them, and a repetition under the same Idempotency-Key may change them.",
    )


class UsageOut(ninja.Schema):
    """As the provider bills them; 0 where it does not say, or nothing that can be true."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class GenerationOut(ninja.Schema):
    id: UUID = Field(description="Key of the generation's log row.")
    result: str
    tokens: int = Field(description="The total, as in `usage`.")
    usage: UsageOut
    model: str = Field(description="The model that answered.")
    provider: str
    latency_ms: int = Field(description="From the request's arrival to the LLM's answer.")
