"""The typed, frozen view of `settings.STACCATO`, and its only reader.

Each field here is one configuration name: upper-cased it is the key in the
`STACCATO` dict, and `environment_name()` tells the variable that `project/`
reads it from. The README's table is tested against this class.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# These families are known by their own names; every other setting is
# prefixed with STACCATO_ in the environment.
_BARE_PREFIXES = ("DB_", "LLM_", "ANTHROPIC_", "OPENAI_")


def _parse_range(value: object) -> object:
    """'2-8' or '3' → (2.0, 8.0) or (3.0, 3.0)."""
    if isinstance(value, str):
        low, _, high = value.partition("-")
        return (low, high or low)
    return value


def _parse_boolean(value: object) -> object:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in {"1", "true", "yes", "on"}:
            return True
        if word in {"0", "false", "no", "off"}:
            return False
        raise ValueError("use 1/0, true/false, yes/no or on/off")
    return value


Boolean = Annotated[bool, BeforeValidator(_parse_boolean)]
Range = Annotated[tuple[float, float], BeforeValidator(_parse_range)]
Access = Literal["open", "staff", "off"]


class Settings(BaseModel):
    """Everything that can be set. Times are seconds unless a name says otherwise."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, hide_input_in_errors=True
    )

    database: str = Field("default", description="The Django database that holds the tables.")
    db_pool_size: int = Field(
        10, ge=1, le=1000, description="Connections the hot path keeps open, per process."
    )
    db_max_overflow: int = Field(
        20, ge=0, le=1000, description="Extra connections for accidents; closed on return."
    )
    db_pool_timeout: float = Field(
        10, gt=0, le=300, description="Longest wait for a connection, then 503."
    )
    db_pool_recycle: int = Field(
        3600, ge=-1, description="Replace a connection older than this; -1 never."
    )
    db_pool_pre_ping: Boolean = Field(
        default=True, description="Test a connection before each use."
    )
    db_echo: Boolean = Field(default=False, description="Log every SQL statement of the hot path.")
    db_command_timeout: float = Field(
        10, gt=0, le=300, description="Longest time one statement may take."
    )
    write_timeout: float = Field(
        10, gt=0, le=300, description="Longest wait for a log row to be committed."
    )

    llm_provider: Literal["auto", "anthropic", "simulated"] = Field(
        "auto", description="`auto`: Anthropic where its key is set, else simulated."
    )
    llm_model: str = Field(
        "claude-sonnet-5-5",
        min_length=1,
        max_length=200,
        description="Model, where neither the request nor the profile names one.",
    )
    llm_max_tokens: int = Field(
        1024, ge=1, le=1_000_000, description="Longest answer, in tokens, likewise."
    )
    llm_timeout: float = Field(
        30, gt=0, le=3600, description="Total time for the LLM, all attempts and waits included."
    )
    llm_connect_timeout: float = Field(
        5, gt=0, le=300, description="Time to reach the provider's server."
    )
    llm_max_attempts: int = Field(3, ge=1, le=20, description="Calls to the provider per request.")
    llm_simulated_latency: Range = Field(
        (2, 8), description="How long the simulated provider takes, as `low-high`."
    )
    anthropic_api_key: SecretStr = Field(SecretStr(""), description="Key for Anthropic.")
    anthropic_base_url: str = Field(
        "https://api.anthropic.com",
        pattern=r"^https?://[^\s]+$",
        description="Where Anthropic's API is.",
    )

    max_in_flight: int = Field(
        5000, ge=1, le=1_000_000, description="Requests one process takes at once, then 503."
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, description="Largest request body, then 413."
    )
    drain_timeout: float = Field(
        45, gt=0, le=3600, description="Longest time shutdown waits for requests in flight."
    )
    pool_access: Access = Field("open", description="Who sees `/api/v1/pool`: open, staff, off.")
    metrics_access: Access = Field("open", description="Who sees `/metrics`: open, staff, off.")


def environment_name(key: str) -> str:
    """The environment variable for a key: LLM_TIMEOUT → LLM_TIMEOUT, MAX_IN_FLIGHT → STACCATO_…"""
    return key if key.startswith(_BARE_PREFIXES) else f"STACCATO_{key}"


def parse(values: Mapping[str, Any]) -> Settings:
    """Validate a STACCATO dict. Raises `ImproperlyConfigured` with one line per fault.

    Values of secrets are never quoted.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise ImproperlyConfigured("; ".join(_explain(error, values))) from None


def _explain(error: ValidationError, values: Mapping[str, Any]) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        key = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key} is not a setting of Staccato")
            continue
        field = Settings.model_fields[key.lower()]
        shown = "(hidden)" if field.annotation is SecretStr else repr(values.get(key))
        reason = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{environment_name(key)}={shown}: {reason}")
    return lines


@lru_cache(maxsize=1)
def _parse_django_settings() -> Settings:
    return parse(getattr(django_settings, "STACCATO", {}))


def load() -> Settings:
    """The settings of this process, parsed once."""
    return _parse_django_settings()
