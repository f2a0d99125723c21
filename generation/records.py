"""Records that travel between the folders, unchanged. No behaviour beyond arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    TypeVar,
    dataclass_transform,
)
from uuid import UUID

from generation.conversation import NO_OPTIONS, Options
from generation.effects import Effect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.conversation import Block, Message, Tool

# A user's primary key as JSON has it; a UUID is its text. See `user_keys.py`.
UserKey: TypeAlias = int | str
Status = Literal["succeeded", "failed", "timed_out", "cancelled"]
# What a log row keeps of its texts, from all to nothing.
LogContent = Literal["full", "redacted", "hashed", "metadata"]
# Another vendor's shape of requests and answers, by the name of the provider that has it; OpenAI's
# responses are written as conversations for each.
Dialect = Literal["openai", "anthropic", "responses"]


Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(kind: type[Kind]) -> type[Kind]:
    """Returns the class as a dataclass that nobody changes; only the type checker enforces it.

    For what is made for each generation, or for each event of one: `dataclass(frozen=True)`
    enforces it at run time, too, and takes half as long again to make one. What generations share
    is frozen at run time, and so is a prompt, since a project's own provider gets it.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)


class Finding(Enum):
    """What a failed call to a provider shows. `llm/policy.py` says what follows from it."""

    # The caller's prompt
    DECLINED = auto()  # by the model, a filter or a moderation
    TOO_LONG = auto()
    REJECTED = auto()  # for a reason that nobody of us is known to have caused
    CUT_OFF = auto()  # the limit on tokens was reached before any text
    # Our side
    ACCOUNT = auto()  # unpaid, suspended, not served in our region
    BAD_KEY = auto()
    UNKNOWN_MODEL = auto()
    OUR_PARAMETER = auto()  # one that the caller can't choose
    NOT_THE_API = auto()  # a web page, a redirect, an address that takes no prompts
    PROXY = auto()  # between us and the provider
    UNSENDABLE = auto()
    # The provider, for the moment
    RATE_LIMITED = auto()
    OVERLOADED = auto()
    FAILED = auto()
    TIMED_OUT = auto()
    UNREACHABLE = auto()
    BUSY = auto()  # our own limit of calls at once
    PAUSED = auto()  # our own circuit breaker
    # The reply, after a status of success
    EMPTY = auto()  # whole, but without a text
    BROKEN_OFF = auto()
    UNREADABLE = auto()  # something that may hold an answer
    GARBLED = auto()  # nothing of an answer can be in it


@dataclass(frozen=True, slots=True)
class Grant:
    """What an API key allows."""

    key_id: int | None  # None: no key was required
    users: frozenset[UserKey] | None  # None: all
    targets: tuple[tuple[str, str], ...] = ()  # provider, model; none: all that are offered
    is_service: bool = False  # belongs to no single user, so it may see the operators' pages
    log_content: str = ""  # a LogContent, or '': the service's
    weight: int = 1  # of its share of a process that is nearly full

    def covers(self, provider: str, model: str) -> bool:
        if not self.targets:
            return True
        return (provider, model) in self.targets or (provider, "") in self.targets


# If no key is required.
ANYBODY = Grant(key_id=None, users=None)


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A client's own request: a provider of the same dialect gets it, with all that we don't know.

    One of another dialect gets the conversation, and refuses what that has no place for.
    """

    dialect: Dialect
    body: Mapping[str, Any]
    headers: Mapping[str, str]  # of the client's, for the provider
    unsaid: tuple[str, ...]  # the members of the body that the conversation lacks
    bytes: int  # of the body
    path: str = (
        ""  # of another service of the provider's, e.g. embeddings; '': it is a conversation
    )


class Trace(NamedTuple):
    """The caller's span, as its `traceparent` names it. Empty: there is none."""

    trace_id: str = ""  # 32 hex digits
    span_id: str = ""  # 16 hex digits
    is_sampled: bool = False  # the caller records it


NO_TRACE = Trace()


@record
class GenerationRequest:
    """What a caller asked for, already validated."""

    user_id: UserKey | None  # None: nobody's, of code in this process
    request_id: str
    arrived_at: datetime  # UTC, for the row
    started: float  # time.monotonic() at arrival, for durations and deadlines
    input: str = ""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    provider: str = ""
    model: str = ""
    max_tokens: int | None = None
    idempotency_key: str = ""
    grant: Grant = ANYBODY
    trace: Trace = NO_TRACE
    metadata: Mapping[str, str] = field(default_factory=dict)  # the caller's own, for the row
    messages: tuple[Message, ...] = ()  # in place of the template and the input
    system: str | None = None  # with messages; None: the profile's
    tools: tuple[Tool, ...] = ()
    options: Options = NO_OPTIONS
    is_streamed: bool = False
    is_background: bool = False  # goes on without a client, who comes back for the answer
    verbatim: Verbatim | None = None  # what the messages were read from
    prompt: str | None = None  # as it is sent, in place of the template and the input
    timeout: float | None = None  # seconds for the LLM, within LLM_TIMEOUT
    effects: tuple[Effect, ...] = ()  # of the row's insertion
    replay_of: UUID | None = None  # the row whose prompt this is
    author_id: UserKey | None = None  # of a replay: whose texts they are


@dataclass(frozen=True, slots=True)
class Profile:
    """A user's prompt template and defaults, as phase 1 reads them."""

    user_id: UserKey | None
    prompt_template: str
    system: str
    provider: str
    model: str
    max_tokens: int | None
    log_content: str = ""  # a LogContent, or '': the service's
    exists: bool = True  # False: the user has none


NOBODYS = Profile(None, "", "", "", "", None, exists=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the LLM, and to which one."""

    text: str  # what the user says last; all of it, where there are no `messages`
    system: str
    provider: str
    model: str
    max_tokens: int
    grant: Grant = ANYBODY  # because fallbacks need it, too
    log_content: LogContent = "full"  # for the row, and for what the service's log may quote
    messages: tuple[Message, ...] = ()  # a conversation, which ends with `text`; empty: only that
    tools: tuple[Tool, ...] = ()
    options: Options = NO_OPTIONS
    verbatim: Verbatim | None = None


@record
class Usage:
    """Tokens as the provider bills them; cache reads and writes count as input.

    None: the provider did not say, or nothing that can be true.
    """

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int = 0  # the part of the input that has a price of its own
    cache_write_tokens: int = 0
    is_estimated: bool = False  # at least one of the counts is ours, from the length of the texts

    @property
    def total_tokens(self) -> int | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    @property
    def known_tokens(self) -> int:
        """At least as many were used."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)


@record
class Attempt:
    """One call to a provider."""

    provider: str
    model: str
    status: int | None  # HTTP status; None if no reply came
    error: str  # slug of the LLMError; empty if it succeeded
    ms: int
    at_ms: int = 0  # when it began, after the completion did


@record
class Reply:
    """What the LLM answered."""

    text: str  # of all text blocks
    usage: Usage
    stop_reason: str
    cost_usd: Decimal | None = None  # None: the price is unknown
    price: str = ""  # what the cost was computed with
    raw_reply: str = ""  # shortened; only if the reply held more than one complete text
    blocks: tuple[Block, ...] = ()  # empty: one block of text, or nothing
    # The provider's JSON, if that is in the client's own dialect, and came whole.
    original: Mapping[str, Any] | None = None


class Charge(TypedDict):
    """What a row settles of what its process has leased. A dict, because each is made to be
    written as JSON."""

    lease: int  # the id of a LimitLease
    amount: int  # in the limit's unit


@record
class LogRow:
    """What became of one request that passed phase 1. The store puts its texts into
    GenerationBody, and all else into GenerationLog.
    """

    id: UUID
    user_id: UserKey | None
    prompt: str
    system: str
    provider: str
    model: str
    status: Status
    attempts: tuple[Attempt, ...]
    raw_reply: str
    latency_ms: int
    llm_latency_ms: int
    request_id: str
    created_at: datetime
    # If there is a reply.
    result: str = ""
    result_cleaned: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    stop_reason: str = ""
    cost_usd: Decimal | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    # If there is an error.
    error_type: str = ""
    error: str = ""
    # Where the request came from.
    api_key_id: int | None = None
    max_tokens: int | None = None
    trace_id: str = ""
    replay_of: UUID | None = None
    author_id: UserKey | None = None  # of a replay: whose texts they are; not stored
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Of a stream: from the request's arrival to the first content; None if none came.
    is_streamed: bool = False
    first_token_ms: int | None = None
    is_estimated: bool = False  # the tokens, since the provider did not say
    # As JSON, see `conversation.py`; '' where `prompt` and `result` are all.
    conversation: str = ""
    blocks: str = ""
    # What `privacy/` did to the texts.
    content: LogContent = "full"
    result_held: bool = False  # the result is whole until its request can't be repeated any more
    encryption_key: str = ""  # the name of the texts' key; '': they are not encrypted
    excerpt: str = ""  # the start of an encrypted prompt
    # What it costs its caller.
    price: str = ""
    charges: tuple[Charge, ...] | None = None  # None: no limit asks
    is_cost_assumed: bool = False


class KeyRef(NamedTuple):
    """Names an idempotency key: each user has keys of their own."""

    user_id: UserKey | None  # no key is without a user; requests are
    key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt to own an idempotency key."""

    user_id: UserKey | None
    key: str
    fingerprint: str  # HMAC-SHA256 of what is asked for
    token: UUID  # the fencing token: proves the ownership

    @property
    def ref(self) -> KeyRef:
        return KeyRef(self.user_id, self.key)


@record
class KeyedRow:
    """A row, and what its insertion entails: the claim on an idempotency key that it completes,
    and rows of the project's own."""

    row: LogRow
    claim: Claim | None = None  # None: the request had no key
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """What the log has of a generation."""

    user_id: UserKey | None
    status: Status
    error_type: str
    error: str
    generation: Generation
    is_verbatim: bool = True  # False: its texts are masked, hashed or gone


@record
class UsageRow:
    """One row of UsageLog."""

    user_id: UserKey
    tokens: int
    latency_ms: int
    created_at: datetime


@record
class Generation:
    """What the caller gets."""

    id: UUID
    result: str
    usage: Usage
    provider: str
    model: str
    latency_ms: int
    replayed: bool = False  # of an earlier request with the same Idempotency-Key
    stop_reason: str = ""
    blocks: tuple[Block, ...] = ()  # empty: `result` is all
    original: Mapping[str, Any] | None = None  # see `Reply`; never of a replayed one
