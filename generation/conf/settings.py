"""The typed, frozen form of `settings.STACCATO`.

Each field is one setting: in upper case it is the key in the `STACCATO` dict, and
`environment_name()` returns the variable that `project/` reads it from. `make docs` writes
docs/configuration.md from this class. Its groups are in `database`, `log`, `llm` and `traces`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from generation.conf.database import DatabaseSettings
from generation.conf.fields import PROVIDERS, Access, OptionalBoolean, WebhookUrl
from generation.conf.llm import LlmSettings
from generation.conf.log import LogSettings
from generation.conf.traces import TraceSettings

# These families are known by their own names; every other setting is
# prefixed with STACCATO_ in the environment.
_BARE_PREFIXES = ("DB_", "LLM_", "OTEL_", *(f"{name.upper()}_" for name in PROVIDERS))


class Settings(TraceSettings, LlmSettings, LogSettings, DatabaseSettings):
    """Everything that can be set. Times are seconds unless a name says otherwise."""

    serve: Literal["all", "api", "pages"] = Field(
        "all",
        description="What this process serves: `api`: callers, probes and Prometheus; `pages`: the "
        "admin, `/`, the live page and the docs, and no callers; `all`: both. In a process of "
        "their own, pages slow no generation.",
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


def environment_name(key: str) -> str:
    """The environment variable for a key: LLM_TIMEOUT → LLM_TIMEOUT, MAX_IN_FLIGHT → STACCATO_…"""
    return key if key.startswith(_BARE_PREFIXES) else f"STACCATO_{key}"
