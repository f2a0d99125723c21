"""What the native API takes and returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import ninja
from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from generation.api.base import Body, Object
from generation.api.native import examples
from generation.api.native.fields import JSONObject, Label, LabelValue, Name, Text, at_most
from generation.api.native.messages import (
    Messages,
    Tools,
    check_order,
    records,
    system_of,
)
from generation.conversation import NO_OPTIONS, Message, Options

MAX_VARIABLES = 100
MAX_METADATA = 16
MAX_STOPS = 16
_CHOICES = {"auto", "none", "required"}
# Members that say something about a conversation, and nothing about a template.
_OF_MESSAGES = {
    *("system", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("temperature", "top_p", "stop", "reasoning_effort"),
}


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class ResponseFormat(Object):
    """As OpenAI has it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONObject | None = Field(
        None, description="With `json_schema`: its `name`, its `schema`, perhaps `strict`."
    )

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError(
                "response_format", "`json_schema` goes with the type json_schema, and only with it"
            )
        return self


class GenerateIn(Body):
    """Everything is optional: an empty body sends the user's template as it stands."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [examples.REQUEST, examples.CONVERSATION]}
    )

    input: Text = Field("", description="Fills `$input`, or follows the template.")
    variables: Annotated[dict[Name, Text], at_most(MAX_VARIABLES, "variables")] = Field(
        default_factory=dict, max_length=MAX_VARIABLES, description="Fill the template's `$name`s."
    )
    stream: StrictBool = Field(
        default=False, description="Answer with events (text/event-stream) while the LLM writes."
    )
    messages: Messages | None = Field(
        None, description="A conversation, in place of the template with `input` and `variables`."
    )
    system: Text | None = Field(
        None, description="With `messages`. Default: the system prompt of the user's profile."
    )
    tools: Tools = Field(default_factory=list, description="What the model may ask for.")
    tool_choice: Text = Field(
        "", max_length=64, description="`auto`, `none`, `required`, or the name of a tool."
    )
    parallel_tool_calls: StrictBool | None = Field(
        None, description="Whether the model may ask for more than one call at once."
    )
    response_format: ResponseFormat | None = None
    temperature: float | None = Field(None, ge=0, le=2, strict=True)
    top_p: float | None = Field(None, ge=0, le=1, strict=True)
    stop: Annotated[
        list[Stop],
        at_most(MAX_STOPS, "stop sequences"),
        BeforeValidator(_as_list, json_schema_input_type=Stop | list[Stop]),
    ] = Field(default_factory=list, description="Texts that end the answer.")
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    provider: Text = Field("", max_length=32, description="One that the service offers.")
    model: Text = Field("", max_length=200, description="One that the service offers.")
    max_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="Longest answer, in tokens."
    )
    metadata: Annotated[dict[Label, LabelValue], at_most(MAX_METADATA, "members")] = Field(
        default_factory=dict,
        max_length=MAX_METADATA,
        description="Your own names and values for the log row, e.g. a ticket's number. The LLM"
        " does not get them, and a repetition under the same Idempotency-Key may change them.",
    )

    @model_validator(mode="after")
    def _check_conversation(self) -> GenerateIn:
        if self.messages is None:
            for name in self.model_fields_set & _OF_MESSAGES:
                raise PydanticCustomError("messages", f"`{name}` goes with `messages` only")
            return self
        if self.input or self.variables:
            raise PydanticCustomError(
                "messages",
                "`messages` stands in place of `input` and `variables`: send one of them",
            )
        check_order(self.messages)
        if self.system is not None and system_of(self.messages):
            raise PydanticCustomError(
                "messages", "there is a `system`, and a message of the role system: send one"
            )
        self._check_tools()
        return self

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(names) > len(set(names)):
            raise PydanticCustomError("tools", "two of `tools` have the same name")
        if self.tool_choice and not names:
            raise PydanticCustomError("tools", "`tool_choice` goes with `tools` only")
        if self.tool_choice and self.tool_choice not in _CHOICES.union(names):
            raise PydanticCustomError(
                "tools", "`tool_choice` is auto, none, required or the name of one of `tools`"
            )

    def conversation(self) -> dict[str, Any]:
        """Returns the fields of a `GenerationRequest` that describe a conversation."""
        if self.messages is None:
            return {}
        messages: tuple[Message, ...] = records(self.messages)
        return {
            "messages": messages,
            "system": self.system if self.system is not None else system_of(self.messages) or None,
            "tools": tuple(tool.record() for tool in self.tools),
            "options": self._options(),
        }

    def _options(self) -> Options:
        if self.model_fields_set.isdisjoint(_OF_MESSAGES):
            return NO_OPTIONS
        form = self.response_format
        return Options(
            temperature=self.temperature,
            top_p=self.top_p,
            stop=tuple(self.stop),
            reasoning_effort=self.reasoning_effort or "",
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=None if form is None else form.model_dump(exclude_none=True),
        )


class UsageOut(ninja.Schema):
    """As the provider bills them; 0 where it does not say, or nothing that can be true."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class BlockOut(ninja.Schema):
    """A part of an answer, in the form in which `messages` take it back."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "thinking", "tool_use"]


class GenerationOut(ninja.Schema):
    id: UUID = Field(description="Key of the generation's log row.")
    result: str
    content: list[BlockOut] = Field(
        default_factory=list, description="Only if the answer is more than one text, e.g. a call."
    )
    stop_reason: str = Field(description="Why the model stopped: end_turn, max_tokens, tool_use, …")
    tokens: int = Field(description="The total, as in `usage`.")
    usage: UsageOut
    model: str = Field(description="The model that answered.")
    provider: str
    latency_ms: int = Field(description="From the request's arrival to the LLM's answer.")


class StoredOut(GenerationOut):
    status: Literal["running", "succeeded", "failed", "timed_out", "cancelled"] = Field(
        description="`running`: `result` is what there is of the answer so far."
    )
    error: dict[str, Any] = Field(
        default_factory=dict, description="A problem document, if the generation has failed."
    )


class LimitOut(ninja.Schema):
    """Amounts of US dollars are decimals in a text, all others numbers."""

    policy: str = Field(description="Its name in the RateLimit headers.")
    scope: Literal["key", "user"]
    unit: Literal["requests", "tokens", "usd", "in_flight"]
    window: str | None = Field(description="second, minute, hour, day, week, month or ever.")
    target: str | None = Field(description="The provider and model that it is for; null: all.")
    limit: int | str
    used: int | str
    reserved: int | str = Field(description="By calls under way.")
    left: int | str
    resets_at: str | None = Field(description="When the window ends.")
    is_enforced: bool = Field(description="If not, it refuses nothing.")


class LimitsOut(ninja.Schema):
    limits: list[LimitOut]
