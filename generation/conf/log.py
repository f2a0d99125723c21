"""The settings of the log: how long rows are kept, and what is kept of texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from generation.conf.base import Group
from generation.conf.fields import BodyKeys, RedactorPath, parse_body_keys
from generation.records import LogContent


class LogSettings(Group):
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
    rollup_retention_days: int = Field(
        1100,
        ge=1,
        le=36_500,
        description="How long the sums are kept from which the dashboard is made: those of a "
        "week; finer ones as long as the log, and half a year at least.",
    )
    access_retention_days: int = Field(
        730,
        ge=1,
        le=36_500,
        description="How long it is kept who read, searched, exported, sent again or erased texts. "
        "A week of it is dropped at once, so some is kept for a week longer.",
    )
    archive_first: bool = Field(
        default=False,
        description="Drop log rows and texts only once `manage.py staccato_archive` has written "
        "them. Until then they are kept, also past their retention.",
    )

    search: Literal["off", "scan", "words"] = Field(
        "scan",
        description="Whether the admin finds words in prompts and results: `off`; `scan`: by "
        "reading them, for 2.5 s at a time; `words`: through an index, made for each day once it "
        "is over. It costs 1 ms of the database's CPU a row, and half of the texts' size.",
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

    @field_validator("body_retention_days")
    @classmethod
    def _check_body_retention(cls, days: int, info: ValidationInfo) -> int:
        log_days = info.data.get("log_retention_days", days)  # missing where it is at fault itself
        if days > log_days:
            raise ValueError(f"texts can't outlive their log rows, which are kept {log_days} days")
        return days

    @property
    def body_days(self) -> int:
        """How many days texts are kept: by default, no longer than their log rows."""
        return min(self.body_retention_days, self.log_retention_days)

    @property
    def body_key_ring(self) -> dict[str, bytes]:
        """The keys for texts by their ids; the first one writes."""
        return parse_body_keys(self.body_keys.get_secret_value())
