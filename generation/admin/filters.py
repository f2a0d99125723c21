"""The filters of the log list, each bounded by an index."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.utils.timezone import make_aware

from generation.admin.theme import DropdownFilter, RangeDateTimeFilter
from generation.models import GenerationLog
from generation.partitions.intervals import first_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet
    from django.http import HttpRequest

    from generation.admin.theme import ModelAdmin

# The choices are the values of the newest rows: finding all distinct values would read the
# whole table.
SAMPLED_ROWS = 1000
# An id is made after its request's arrival and before its row is written. No request takes
# longer than this: `LLM_TIMEOUT` is an hour at most.
LONGEST_REQUEST = timedelta(hours=2)
CLOCK_STEP = timedelta(minutes=1)


class ColumnFilter(DropdownFilter):
    def queryset(
        self, request: HttpRequest, queryset: QuerySet[GenerationLog]
    ) -> QuerySet[GenerationLog]:
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class StatusFilter(ColumnFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        return GenerationLog.Status.choices


class SampledFilter(ColumnFilter):
    """Offers the values of the newest rows; any other works in the address."""

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        column = str(self.parameter_name)
        newest = GenerationLog.objects.order_by("-pk").values_list(column, flat=True)
        values = {*newest[:SAMPLED_ROWS], self.value()}
        return [(value, value) for value in sorted(filter(None, values))]


class ProviderFilter(SampledFilter):
    title = "provider"
    parameter_name = "provider"


class ModelFilter(SampledFilter):
    title = "model"
    parameter_name = "model"


class ArrivalFilter(RangeDateTimeFilter):
    """Arrived from one moment until just before another, with bounds on the time-ordered ids.

    Without these bounds, a search for a range of last year would start at the newest row.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "arrival"

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[GenerationLog]
    ) -> QuerySet[GenerationLog]:
        limits: dict[str, Any] = {}
        try:
            if start := self._moment("from", days=0):
                limits |= {"created_at__gte": start, "pk__gte": first_id(start - CLOCK_STEP)}
            if end := self._moment("to", days=1):
                limits |= {"created_at__lt": end, "pk__lt": first_id(end + LONGEST_REQUEST)}
        except (ValueError, OverflowError):
            messages.warning(
                request,
                "The filter by arrival was ignored, because a date or time is not valid. Enter"
                " dates as 2026-01-31, and times, if any, as 14:05.",
            )
            return queryset
        return queryset.filter(**limits)

    def _moment(self, side: str, *, days: int) -> datetime | None:
        """Returns the entered moment; for a day without a time, its start plus `days`."""
        day = str(self.used_parameters.get(f"created_at_{side}_0") or "")
        clock = str(self.used_parameters.get(f"created_at_{side}_1") or "")
        if not day:
            return None
        moment = datetime.combine(
            date.fromisoformat(day), time.fromisoformat(clock) if clock else time()
        )
        return make_aware(moment if clock else moment + timedelta(days=days))
