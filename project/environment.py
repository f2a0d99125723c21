"""Reads the environment and `.env` strictly: a bad value ends the start with one line."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from dotenv import dotenv_values

from generation import conf

if TYPE_CHECKING:
    from pathlib import Path

_MAX_DIGITS = 9
_VERY_CLOSE = 0.9  # of names that may be anybody's
_OURS = ("ANTHROPIC_", "OPENAI_", "LLM_", "STACCATO_")
_CLOSE = 0.75  # e.g. OPENAI_KEY


class Variable(NamedTuple):
    """One variable of the deployment, as docs/configuration.md shows it."""

    name: str
    default: str
    meaning: str


class Environment:
    """Values by name. The process's environment overrides the file; empty means not set.

    `variables` lists what was read, in that order: docs/configuration.md is made from it.
    """

    def __init__(self, file: Path) -> None:
        merged = {**dotenv_values(file), **os.environ}
        self._values = {name: value for name, value in merged.items() if value}
        self.variables: list[Variable] = []

    def text(self, name: str, default: str = "", *, meaning: str) -> str:
        self.variables.append(Variable(name, default, meaning))
        return self._values.get(name, default)

    def boolean(self, name: str, *, default: bool, meaning: str) -> bool:
        word = self.text(name, "1" if default else "0", meaning=meaning).strip()
        if not word:
            return default
        try:
            return conf.parse_boolean(word)
        except ValueError as error:
            stop(f"{name}={word!r}: {error}")

    def integer(self, name: str, default: int, *, meaning: str) -> int:
        """Returns zero or more."""
        word = self.text(name, str(default), meaning=meaning).strip()
        if not word.isdecimal() or len(word) > _MAX_DIGITS:
            stop(f"{name}={word!r}: use a whole number, 0 or more, of at most {_MAX_DIGITS} digits")
        return int(word)

    def choice(self, name: str, default: str, *allowed: str, meaning: str) -> str:
        """Returns one of `allowed`, in whichever case it is given."""
        word = self.text(name, default, meaning=meaning).strip()
        known = {each.upper(): each for each in allowed}
        if word.upper() not in known:
            stop(f"{name}={word!r}: use {', '.join(allowed)}")
        return known[word.upper()]

    def words(self, name: str, default: str = "", *, meaning: str) -> list[str]:
        """Returns the parts of a comma-separated list."""
        text = self.text(name, default, meaning=meaning)
        return [word.strip() for word in text.split(",") if word.strip()]

    def misspelt(self) -> dict[str, str]:
        """Returns names that almost match one that is read, and the one that was probably meant.

        Call it when all variables have been read.
        """
        known = {conf.environment_name(field.upper()) for field in conf.Settings.model_fields}
        known |= {variable.name for variable in self.variables}
        found = {
            name: get_close_matches(
                name, known, n=1, cutoff=_CLOSE if name.startswith(_OURS) else _VERY_CLOSE
            )
            for name in self._values.keys() - known
            if not name.startswith("OTEL_")  # OpenTelemetry has many more, and they look alike
        }
        return {name: matches[0] for name, matches in sorted(found.items()) if matches}

    def staccato(self) -> dict[str, Any]:
        """Returns the STACCATO dict: each setting of `generation` that the environment names."""
        values = {
            key: self._values[name]
            for key in (field.upper() for field in conf.Settings.model_fields)
            if (name := conf.environment_name(key)) in self._values
        }
        try:
            conf.validate(values)
        except conf.InvalidSettings as error:
            stop(str(error))
        return values


def stop(reason: str) -> NoReturn:
    """End the process with one line instead of a traceback."""
    raise SystemExit(f"staccato: {reason}")
