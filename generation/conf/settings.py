"""The typed, frozen form of `settings.STACCATO`.

Each field is one setting: in upper case it is the key in the `STACCATO` dict, and
`environment_name()` returns the variable that `project/` reads it from. `make docs` writes
docs/configuration.md from this class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from generation.conf.fields import (
    OFFICIAL_OPENAI_URL,
    PROVIDERS,
    Access,
    AnthropicUrl,
    ApiKey,
    BodyKeys,
    Boolean,
    DottedPath,
    Faults,
    Models,
    OpenAIUrl,
    OptionalBoolean,
    OwnProviders,
    Prices,
    Range,
    RedactorPath,
    Target,
    Targets,
    WebhookUrl,
    parse_body_keys,
    parse_targets,
)
from generation.records import LogContent

if TYPE_CHECKING:
    from collections.abc import Iterable

# These families are known by their own names; every other setting is
# prefixed with STACCATO_ in the environment.
_BARE_PREFIXES = ("DB_", "LLM_", *(f"{name.upper()}_" for name in PROVIDERS))


class Settings(BaseModel):
    """Everything that can be set. Times are seconds unless a name says otherwise."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, hide_input_in_errors=True
    )

    database: str = Field("default", description="The Django database that holds the tables.")
    db_pool_mode: Literal["direct", "pgbouncer-transaction"] = Field(
        "direct",
        description="Use `pgbouncer-transaction` if the database is reached through PgBouncer.",
    )
    db_pool_size: int = Field(
        10, ge=1, le=1000, description="Connections the hot path keeps open, per process."
    )
    db_max_overflow: int = Field(
        20, ge=0, le=1000, description="Extra connections for bursts, closed on return."
    )
    db_pool_timeout: float = Field(
        10, gt=0, le=300, description="Longest wait for a connection; then 503."
    )
    db_pool_recycle: int = Field(
        3600, ge=-1, description="Replace connections older than this; -1: never."
    )
    db_pool_pre_ping: Boolean = Field(
        default=True,
        description="Test a connection that was idle for a second before using it; never done "
        "through PgBouncer.",
    )
    db_echo: Boolean = Field(
        default=False,
        description="Log every SQL statement of the hot path, prompts and answers included.",
    )
    db_command_timeout: float = Field(
        10, gt=0, le=300, description="Longest time for one statement."
    )
    write_timeout: float = Field(
        2, gt=0, le=300, description="Longest wait for a commit; then the row goes to the journal."
    )
    journal_dir: str = Field(
        "var/journal",
        min_length=1,
        description="Folder for rows that the database has not taken yet; if it is relative, below"
        " BASE_DIR.",
    )
    journal_max_bytes: int = Field(
        67_108_864,
        ge=65_536,
        description="Disk space that each process reserves in that folder at start.",
    )

    log_retention_days: int = Field(
        400,
        ge=2,
        le=36_500,
        description="How long log rows are kept, without their texts. A week of them is dropped "
        "at once, so some are kept for a week longer.",
    )
    body_retention_days: int = Field(
        30,
        ge=2,
        le=36_500,
        description="How long prompts and results are kept, in whole days; at most as long as log "
        "rows. At least 2, because a repeated Idempotency-Key gets the first answer for a day.",
    )
    usage_retention_days: int = Field(
        400, ge=1, le=36_500, description="How long the usage log is kept."
    )
    access_retention_days: int = Field(
        730,
        ge=1,
        le=36_500,
        description="How long it is kept who read, searched, exported or erased texts. A week of "
        "it is dropped at once, so some is kept for a week longer.",
    )
    archive_first: bool = Field(
        default=False,
        description="Drop log rows and texts only once `manage.py staccato_archive` has written "
        "them. Until then they are kept, also past their retention.",
    )

    log_content: LogContent = Field(
        "full",
        description="What the log keeps of prompts and results: `full`: all; `redacted`: without "
        "secrets and personal data that can be recognised; `hashed`: keyed hashes, to compare; "
        "`metadata`: nothing. A profile or an API key can only be stricter.",
    )
    redactor: RedactorPath = Field(
        "",
        description="`module:callable` that takes a text and returns what may be kept of it, in "
        "place of the built-in masks. It runs in the event loop, so it must be quick.",
    )
    body_keys: BodyKeys = Field(
        SecretStr(""),
        description="Encrypt prompts and results with AES-256-GCM: `id:key` pairs, separated by "
        "commas, each key 32 bytes in base64. The first one writes, all read. Needs the extra "
        "`[encryption]`.",
    )

    prompt_source: DottedPath = Field(
        "",
        description="Dotted path of a class that reads users' prompts, in place of the table of "
        "profiles: a `generation.PromptSource`.",
    )
    providers: OwnProviders = Field(
        {},
        description="LLM providers of your own, by name: dotted paths of classes that are each a "
        "`generation.Provider`, e.g. `house=yours.providers.House`.",
    )
    llm_provider: str = Field(
        "auto",
        description="`anthropic`, `openai`, `simulated`, or a name of STACCATO_PROVIDERS. `auto`: "
        "Anthropic if its key is set, else OpenAI if its key is set, else simulated while DEBUG is "
        "on. With DEBUG off, made-up answers must be asked for: `simulated`.",
    )
    llm_model: str = Field(
        "",
        max_length=200,
        description="Model to use if neither the request nor the profile names one. Default: the "
        "provider's (claude-sonnet-5-5, gpt-6-luna); a server of your own has none, so name one.",
    )
    llm_allowed: Targets = Field(
        (),
        description="Further `provider:model` pairs that a profile or a request may name, "
        "separated by commas.",
    )
    llm_models: Models = Field(
        {},
        description="Names under which clients may ask for a `provider:model`, e.g. "
        "`fast=anthropic:claude-haiku-5,smart=openai:gpt-6-luna`. The models of LLM_PROVIDER and "
        "LLM_ALLOWED may be asked for by their own names as well.",
    )
    llm_fallbacks: Targets = Field(
        (),
        description="`provider:model` pairs to try, in order, if the first choice fails; "
        "never for a caller's fault.",
    )
    llm_prices: Prices = Field(
        {},
        description="US dollars per million tokens of input, output and, if it differs, of input "
        "from the provider's cache, e.g. `openai:gpt-6-luna=2.5/10/0.25,openai:llama3=0/0`; "
        "without a model, of all of the provider's. They count before the prices that are known "
        "of the vendors. 0/0 is free; a model without a price is refused where a budget in dollars "
        "applies.",
    )
    llm_max_tokens: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Longest answer, in tokens, if neither the request nor the profile says.",
    )
    llm_timeout: float = Field(
        30,
        gt=0,
        le=3600,
        description="Total time for the LLM, with all attempts, waits and fallbacks.",
    )
    llm_attempt_timeout: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Time for one attempt, within the total. Default: two thirds of it.",
    )
    llm_stream_idle_timeout: float = Field(
        60,
        gt=0,
        le=3600,
        description="Longest silence of a provider in the middle of a streamed answer. Its first "
        "words must come within LLM_TIMEOUT.",
    )
    llm_stream_timeout: float = Field(
        600, gt=0, le=86_400, description="Total time for one streamed answer."
    )
    llm_connect_timeout: float = Field(
        5, gt=0, le=300, description="Time to reach the provider's server."
    )
    llm_max_attempts: int = Field(
        3, ge=1, le=20, description="Calls to one provider per request, including the first."
    )
    llm_max_concurrency: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Calls to one provider at once, per process; 0: no limit.",
    )
    llm_queue_timeout: float = Field(
        1, ge=0, le=300, description="Longest wait for one of those calls to end; then 503."
    )
    llm_max_reply_bytes: int = Field(
        4_194_304, ge=1024, le=1_073_741_824, description="Largest reply read from a provider."
    )
    llm_simulated_latency: Range = Field(
        (2, 8), description="How long the simulated provider takes: `low-high`, or one number."
    )
    llm_simulated_faults: Faults = Field(
        {},
        description="How often the simulated provider fails, e.g. "
        "`429=0.05,529=0.02,timeout=0.01`. Kinds: 429, 500, 503, 529, timeout, malformed, cut (it "
        "breaks off half-way), stall (it falls silent half-way).",
    )
    anthropic_api_key: ApiKey = Field(SecretStr(""), description="Key for Anthropic.")
    anthropic_base_url: AnthropicUrl = Field(
        "https://api.anthropic.com", description="Address of Anthropic's API."
    )
    openai_api_key: ApiKey = Field(
        SecretStr(""), description="Key for OpenAI, or for a server that speaks its protocol."
    )
    openai_base_url: OpenAIUrl = Field(
        OFFICIAL_OPENAI_URL,
        description="Address of the OpenAI-compatible API, with its `/v1` "
        "(vLLM, Ollama, llama.cpp, …).",
    )
    openai_max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = Field(
        "auto",
        description="The server's name for the token limit. `auto`: max_completion_tokens at "
        "OpenAI's own address and at Azure's, max_tokens elsewhere.",
    )

    max_in_flight: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="Requests that one process works on at once; beyond that, 503.",
    )
    max_bytes_in_flight: int = Field(
        100_663_296,
        ge=1_048_576,
        description="Bytes of input that one process works on at once; beyond that, 503. A process "
        "takes about six times as much memory.",
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, description="Largest request body; beyond that, 413."
    )
    max_chat_body_bytes: int = Field(
        33_554_432,
        ge=1024,
        description="Largest request body of `/v1`, since clients of other vendors' protocols send "
        "the whole conversation, images included; beyond that, 413.",
    )
    body_timeout: float = Field(
        30, gt=0, le=3600, description="Longest time for a request's body to arrive; then 408."
    )
    send_timeout: float = Field(
        30,
        gt=0,
        le=3600,
        description="Longest time for a client to take a part of a streamed answer; then it counts "
        "as disconnected.",
    )
    api_keys_required: OptionalBoolean = Field(
        None, description="Reject requests without an API key. Default: on, unless DEBUG is on."
    )
    api_key_pepper: SecretStr = Field(
        SecretStr(""),
        description="Secret under which API keys are hashed, and texts of the log that are kept as "
        "hashes. A change makes all API keys invalid, and new hashes differ from old ones. "
        "Default: derived from SECRET_KEY.",
    )
    on_disconnect: Literal["auto", "cancel", "finish"] = Field(
        "auto",
        description="When a client disconnects: `cancel` its LLM call, or `finish` it. `auto`: "
        "finish if it sent an Idempotency-Key.",
    )
    drain_timeout: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Longest time that shutdown waits for requests in flight. Default: "
        "LLM_TIMEOUT + STACCATO_WRITE_TIMEOUT + 3.",
    )
    ratelimit_headers: Literal["draft", "openai", "both", "off"] = Field(
        "draft",
        description="Which headers tell a caller what is left of its limits: `draft`: RateLimit "
        "and RateLimit-Policy; `openai`: x-ratelimit-…; `both` or `off`. They show what this "
        "process knows.",
    )
    limit_webhook: WebhookUrl = Field(
        "",
        description="Where to send an alert when a limit's 50, 80 or 100 % are used, once for "
        "each window. Empty: the log has it.",
    )
    limit_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Signs those alerts, in the way of Standard Webhooks."
    )
    pool_access: Access = Field(
        "auto",
        description="Who sees `/api/v1/pool`: `open`: everybody; `staff`: staff and service "
        "keys; `off`: nobody; `auto`: staff if keys are required, else everybody.",
    )
    metrics_access: Access = Field("auto", description="Who sees `/metrics`, in the same words.")
    docs_access: Access = Field(
        "auto",
        description="Who sees `/api/v1/docs` and `/api/v1/openapi.json`, in the same words; here "
        "any API key will do.",
    )

    @field_validator("body_retention_days")
    @classmethod
    def _check_body_retention(cls, days: int, info: ValidationInfo) -> int:
        log_days = info.data.get("log_retention_days", days)  # missing where it is at fault itself
        if days > log_days:
            raise ValueError(f"texts can't outlive their log rows, which are kept {log_days} days")
        return days

    @field_validator("llm_provider")
    @classmethod
    def _check_provider(cls, name: str, info: ValidationInfo) -> str:
        known = ("auto", *_provider_names(info))
        if name not in known:
            raise ValueError(f"use one of {', '.join(known)}, or name a class in PROVIDERS")
        return name

    @field_validator("llm_allowed", "llm_models", "llm_fallbacks", "llm_prices")
    @classmethod
    def _check_targets(cls, value: Any, info: ValidationInfo) -> Any:
        targets: Iterable[Target] = value
        if isinstance(value, dict) and info.field_name == "llm_models":
            targets = value.values()
        for target in targets:
            target.checked(_provider_names(info))
        return value

    def read_targets(self, text: str) -> tuple[Target, ...]:
        """Raises `ValueError` if it names a provider that there is not."""
        known = (*PROVIDERS, *self.providers)
        return tuple(target.checked(known) for target in parse_targets(text))

    @property
    def body_days(self) -> int:
        """How many days texts are kept: by default, no longer than their log rows."""
        return min(self.body_retention_days, self.log_retention_days)

    @property
    def body_key_ring(self) -> dict[str, bytes]:
        """The keys for texts by their ids; the first one writes."""
        return parse_body_keys(self.body_keys.get_secret_value())

    @property
    def keys_required(self) -> bool:
        """An open choice counts as yes; `conf.load()` leaves none open, it follows DEBUG."""
        return self.api_keys_required is not False

    @property
    def pepper(self) -> str:
        """The secret under which API keys are hashed; `conf.load()` ensures there is one."""
        return self.api_key_pepper.get_secret_value()

    def access_to(
        self, page: Literal["pool", "metrics", "docs"]
    ) -> Literal["open", "staff", "off"]:
        access: Access = getattr(self, f"{page}_access")
        if access == "auto":
            return "staff" if self.keys_required else "open"
        return access

    @property
    def drain_seconds(self) -> float:
        return self.drain_timeout or self.llm_timeout + self.write_timeout + 3


def _provider_names(info: ValidationInfo) -> tuple[str, ...]:
    return (*PROVIDERS, *info.data.get("providers", ()))  # missing where it is at fault itself


def environment_name(key: str) -> str:
    """The environment variable for a key: LLM_TIMEOUT → LLM_TIMEOUT, MAX_IN_FLIGHT → STACCATO_…"""
    return key if key.startswith(_BARE_PREFIXES) else f"STACCATO_{key}"
