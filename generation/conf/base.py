"""What the groups of settings share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Settings of one subject. `Settings` joins the groups."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, hide_input_in_errors=True
    )
