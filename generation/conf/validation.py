"""From a STACCATO dict to `Settings`, or to one line that names every fault."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from generation.conf.settings import Settings, environment_name

if TYPE_CHECKING:
    from collections.abc import Mapping


class InvalidSettings(ValueError):
    """What is wrong, in one line."""


def validate(values: Mapping[str, Any]) -> Settings:
    """Returns the settings of a STACCATO dict. Raises `InvalidSettings`, which names every fault
    and quotes no secret."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidSettings("; ".join(_explain(error, values))) from None


def _explain(error: ValidationError, values: Mapping[str, Any]) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        key = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            known = [name.upper() for name in Settings.model_fields]
            meant = get_close_matches(key.removeprefix("STACCATO_"), known, n=1)
            hint = f"; is it {meant[0]}?" if meant else ""
            lines.append(f"{key} is not a setting of Staccato{hint}")
            continue
        field = Settings.model_fields[key.lower()]
        shown = repr(values.get(key))
        if field.annotation is SecretStr or re.search(
            "[@?]", shown
        ):  # a URL may contain a password or a token
            shown = "(hidden)"
        reason = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{environment_name(key)}={shown}: {reason}")
    return lines
