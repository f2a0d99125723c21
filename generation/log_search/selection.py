"""What somebody asks the log for: the parameters of an address, checked, and as conditions."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import BooleanField, Func, Q, TextField
from django.db.models.lookups import Exact, IsNull
from django.http import QueryDict
from django.utils.timezone import make_aware

from generation import conf
from generation.log_search.people import find_api_keys, find_users
from generation.models import GenerationLog
from generation.partitions.intervals import first_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CLOCK_STEP = timedelta(minutes=1)
FARTHEST = timedelta(days=1)  # from a moment that is asked for, in what is computed of it
TEXT_CHARS = 200  # as wide as the widest column
MOST = 2**31 - 1  # of milliseconds and tokens
PLACES = 9  # after the point, as a cost has; PostgreSQL refuses 1e-99999
ON = "1"

# Parameters of the address whose values are texts of a column.
EXACT = ("status", "provider", "model", "error_type", "stop_reason")
AMOUNTS = {  # each with its unit and an example
    "cost_min": ("US dollars", "0.25"),
    "latency_min": ("seconds", "2.5"),
    "tokens_min": ("a whole number", "4000"),
}
NO_HTTP_STATUS = "none"  # there was no attempt, or the last one got no answer
FLAGS = ("retried", "fell_back")
_HTTP_STATUS = re.compile("[1-9][0-9]{2}", re.ASCII)
DATES = tuple(f"created_at_{side}_{part}" for side in ("from", "to") for part in (0, 1))


@dataclass(frozen=True, slots=True)
class Selection:
    """The generations that are asked for; a field that is empty asks for nothing.

    Each field but the moments is a parameter of the address by the same name.
    """

    q: str = ""  # a log id, a request id or a user
    user: str = ""  # a name or key
    api_key: str = ""  # a name, prefix or id
    status: str = ""
    provider: str = ""
    model: str = ""
    error_type: str = ""
    stop_reason: str = ""
    # Of the last attempt, as the rollups have it, which lead to it as they do to an error; no index
    # serves it, so what they don't cover is read row by row.
    http_status: str = ""  # a number, or `NO_HTTP_STATUS`
    cost_min: Decimal | None = None  # US dollars
    latency_min: Decimal | None = None  # seconds
    tokens_min: int | None = None
    retried: bool = False
    fell_back: bool = False
    words: str = ""  # in the texts
    since: datetime | None = None
    until: datetime | None = None

    @property
    def names(self) -> set[str]:
        """The fields that ask for something."""
        return {field.name for field in fields(self) if getattr(self, field.name)}


PARAMETERS = (
    *(field.name for field in fields(Selection) if field.name not in {"since", "until"}),
    *DATES,
)


# Of Django's list: the place in it, and what it notes for itself.
IGNORED = {"p", "e", "o", "all", "_popup", "_to_field", "_facets"}


def unknown(query: Iterable[str]) -> set[str]:
    """Returns an address's parameters that mean nothing here."""
    return {*query} - {*PARAMETERS} - IGNORED


def parse_query(query: str) -> tuple[Selection, list[str]]:
    """Returns the same of what follows the ? in an address."""
    return parse({name: str(value) for name, value in QueryDict(query).dict().items()})


def parse(query: Mapping[str, str]) -> tuple[Selection, list[str]]:
    """Returns what an address asks for, and a sentence for each value that can't be meant.

    Such a value is left out of the selection.
    """
    faults: list[str] = []
    found: dict[str, Any] = {name: query.get(name, "").strip() == ON for name in FLAGS}
    for name in ("q", "user", "api_key", "words", *EXACT):
        value = query.get(name, "").strip()
        if "\0" in value or len(value) > TEXT_CHARS:
            faults.append(
                f"The filter by {label(name)} was ignored, because its value has a NUL character"
                f" or more than {TEXT_CHARS} characters."
            )
        else:
            found[name] = value
    if (status := found.get("status")) and status not in GenerationLog.Status.values:
        del found["status"]
        statuses = ", ".join(GenerationLog.Status.values)
        faults.append(f"The filter by status was ignored, because it can only be {statuses}.")
    http_status = query.get("http_status", "").strip()
    if not http_status or http_status == NO_HTTP_STATUS or _HTTP_STATUS.fullmatch(http_status):
        found["http_status"] = http_status
    else:
        faults.append(
            "The filter by HTTP status was ignored, because it can only be a number of three"
            f" digits, or “{NO_HTTP_STATUS}”."
        )
    for name, (unit, example) in AMOUNTS.items():
        text = query.get(name, "").strip()
        try:
            found[name] = _amount(text, is_whole=name == "tokens_min") if text else None
        except (ValueError, InvalidOperation):
            faults.append(
                f"The filter by {label(name)} was ignored, because “{text[:40]}” is not a number"
                f" that it can have. Enter {unit}, e.g. {example}."
            )
    try:
        found["since"], found["until"] = _moment(query, "from"), _moment(query, "to", days=1)
        for moment in filter(None, (found["since"], found["until"])):
            _ = moment - FARTHEST, moment + FARTHEST  # neither is outside of all time
    except (ValueError, OverflowError):
        found["since"] = found["until"] = None
        faults.append(
            "The filter by arrival was ignored, because a date or time is not valid. Enter"
            " dates as 2026-01-31, and times, if any, as 14:05, each with its date."
        )
    if found["since"] and found["until"] and found["since"] >= found["until"]:
        found["since"] = found["until"] = None
        faults.append("The filter by arrival was ignored, because it ends before it begins.")
    return Selection(**found), faults


def label(name: str) -> str:
    """Returns a parameter's name in words."""
    words = {
        "q": "search",
        "api_key": "API key",
        "error_type": "error",
        "stop_reason": "stop reason",
        "http_status": "HTTP status",
        "cost_min": "cost",
        "latency_min": "latency",
        "tokens_min": "tokens",
        "fell_back": "fell back",
    }
    return words.get(name, name)


def conditions(asked: Selection) -> Q:
    """Returns the condition for a `GenerationLog`; the words are in `words`.

    Asks the database who is meant by a user, an API key or a search.
    """
    found = Q(**{name: getattr(asked, name) for name in EXACT if getattr(asked, name)})
    if asked.error_type:  # so that the index of those that did not succeed serves
        found &= ~Q(status=GenerationLog.Status.SUCCEEDED)
    if asked.q:
        found &= _searched(asked.q)
    if asked.user:
        found &= Q(user_id__in=find_users(asked.user))
    if asked.api_key:
        found &= Q(api_key_id__in=find_api_keys(asked.api_key))
    return found & _figures(asked) & _period(asked)


def _figures(asked: Selection) -> Q:
    found = Q()
    if asked.cost_min:
        found &= Q(cost_usd__gte=asked.cost_min)
    if asked.latency_min:
        found &= Q(latency_ms__gte=math.ceil(asked.latency_min * 1000))
    if asked.tokens_min:
        found &= Q(total_tokens__gte=asked.tokens_min)
    if asked.http_status == NO_HTTP_STATUS:
        found &= Q(IsNull(_HttpStatus("attempts"), True))  # noqa: FBT003  # Django's signature
    elif asked.http_status:
        found &= Q(Exact(_HttpStatus("attempts"), asked.http_status))
    if asked.retried:
        found &= Q(_Retried("attempts"))
    if asked.fell_back:
        found &= Q(_FellBack("attempts"))
    return found


def _period(asked: Selection) -> Q:
    found = Q()
    if asked.since:
        found &= Q(created_at__gte=asked.since, pk__gte=first_id(asked.since - CLOCK_STEP))
    if asked.until:
        found &= Q(created_at__lt=asked.until, pk__lt=first_id(asked.until + until_id()))
    return found


def until_id() -> timedelta:
    """Returns how long after a request's arrival its row's id is made, at most: its key is looked
    up and its body is read first, and meanwhile the clock may step."""
    return timedelta(minutes=2, seconds=conf.load().body_timeout)


class _HttpStatus(Func):
    """That of the last attempt, as text; as `rollups/` counts it."""

    template = "(%(expressions)s -> -1 ->> 'status')"
    output_field = TextField()


class _Retried(Func):
    """There was more than one attempt."""

    template = "(%(expressions)s -> 1) IS NOT NULL"
    output_field = BooleanField()


class _FellBack(Func):
    """The last attempt asked another model than the first; as `rollups/` counts it."""

    template = (
        "(%(expressions)s -> 0 ->> 'provider', %(expressions)s -> 0 ->> 'model') IS DISTINCT FROM"
        " (%(expressions)s -> -1 ->> 'provider', %(expressions)s -> -1 ->> 'model')"
    )
    output_field = BooleanField()


def _searched(term: str) -> Q:
    """Finds whole values only, each through its index."""
    named = Q(request_id=term)
    with contextlib.suppress(ValueError):
        named |= Q(pk=UUID(term))
    if GenerationLog.objects.filter(named).exists():
        return named
    return Q(user_id__in=find_users(term))


def _amount(text: str, *, is_whole: bool) -> Decimal | int:
    """Raises `ValueError` or `InvalidOperation`."""
    amount = Decimal(text)
    if not 0 <= amount <= MOST // 1000 or round(amount, PLACES) != amount:
        raise ValueError(text)
    if not is_whole:
        return amount
    if amount != int(amount):
        raise ValueError(text)
    return int(amount)


def _moment(query: Mapping[str, str], side: str, *, days: int = 0) -> datetime | None:
    """Returns the entered moment; for a day without a time, its start plus `days`."""
    day = query.get(f"created_at_{side}_0", "").strip()
    clock = query.get(f"created_at_{side}_1", "").strip()
    if not day and not clock:
        return None
    moment = datetime.combine(
        date.fromisoformat(day), time.fromisoformat(clock) if clock else time()
    )
    return make_aware(moment if clock else moment + timedelta(days=days))
