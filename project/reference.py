"""Writes docs/configuration.md from the settings themselves, so that it can't go out of date."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from generation import conf
from project.environment import Variable

_INTRODUCTION = """\
# Configuration

<!-- `make docs` writes this from project/settings.py and generation/conf/. -->

Settings come from the environment, or from `.env` beside `manage.py`. The environment wins, and an
empty value counts as not set. A bad value stops the start with one line that names it, and a name
that looks like a misspelt setting is reported. Times are in seconds.

In [a project of your own](embedding.md), the settings of the last four tables go into the
`STACCATO` dict, without the prefix `STACCATO_`; there the environment is not read.
"""


def render(deployment: list[Variable]) -> str:
    """Returns the whole page. `deployment` lists what project/settings.py reads for itself."""
    parts = [_INTRODUCTION, "## The deployment", ""]
    parts += ["| variable | default | meaning |", "|---|---|---|"]
    parts += [
        f"| `{variable.name}` | {_code(variable.default)} | {variable.meaning} |"
        for variable in deployment
    ]
    titles = ("The hot path's database", "The LLM", "The service", "Traces")
    rows: dict[str, list[str]] = {title: [] for title in titles}
    for field_name, field in conf.Settings.model_fields.items():
        if field_name == "database":
            continue  # a project of one's own names it; this deployment has a single database
        name = conf.environment_name(field_name.upper())
        rows[_section(name)].append(
            f"| `{name}` | {_default(field)} | {_allowed(field)} | {field.description} |"
        )
    for title, lines in rows.items():
        parts += ["", f"## {title}", "", "| variable | default | allowed | meaning |"]
        parts += ["|---|---|---|---|", *lines]
    return "\n".join(parts) + "\n"


def _section(name: str) -> str:
    if name.startswith("DB_"):
        return "The hot path's database"
    if name.startswith("OTEL_"):
        return "Traces"
    return "The service" if name.startswith("STACCATO_") else "The LLM"


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr) or default in ("", None, (), {}):
        return ""
    if isinstance(default, bool):
        return _code("1" if default else "0")
    if isinstance(default, tuple):
        return _code("-".join(f"{part:g}" for part in default))
    return _code(f"{default:g}" if isinstance(default, float) else str(default))


def _allowed(field: FieldInfo) -> str:
    """Returns the words or the bounds that a value may have; empty where the type says it all."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(map(_code, get_args(field.annotation)))
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, Ge):
            low = f"from {bound.ge:,}"
        elif isinstance(bound, Gt):
            low = f"over {bound.gt:,}"
        elif isinstance(bound, Le):
            high = f" to {bound.le:,}"
    return low + high


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
