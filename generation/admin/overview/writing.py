"""How the pages over a period write figures, and which addresses they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.timezone import localtime

if TYPE_CHECKING:
    from decimal import Decimal

    from generation.admin.overview.periods import Period
    from generation.admin.overview.spenders import Spent
    from generation.admin.overview.sums import Sums
    from generation.rollups.buckets import Span


def change(now: float | Decimal, before: float | Decimal) -> str:
    """Returns by how much a figure has grown, in per cent; '' where there was none."""
    if not before:
        return ""
    percent = 100 * (float(now) / float(before) - 1)
    if abs(percent) < 0.5:  # what would be written as 0 %
        return "±0 %"
    return f"{'+' if percent > 0 else '−'}{abs(percent):,.0f} %"


def failed_share(part: Sums | Spent) -> float:
    return part.failed / part.requests if part.requests else 0.0


def requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def cost(part: Sums | Spent) -> str:
    """Returns what is known of it: `$0` is free."""
    return money(part.cost) if part.priced else "–"


def pricing(part: Sums | Spent) -> str:
    """Returns of how many the cost is known; '' if of all."""
    billable = part.priced + part.unpriced
    return f"{part.priced:,} of {billable:,} priced" if part.unpriced else ""


def seconds(ms: float) -> str:
    return f"{ms / 1000:.2f} s"


def length(minutes: int) -> str:
    if minutes < 60:  # an hour
        return f"{minutes} minutes"
    hours = minutes // 60
    return f"{hours} hour{'s' if hours > 1 else ''}"


def money(cost: Decimal) -> str:
    """Returns US dollars, with as many digits as tell a small cost from none."""
    if not cost:
        return "$0"
    return f"${cost:,.2f}" if cost >= 1 else f"${cost:.4f}"


def short(value: float | Decimal) -> str:
    """Returns a number with three digits, e.g. 1.2M."""
    number = float(value)
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def logs_url(span: Span, **filters: str) -> str:
    """Returns the address of the list of logs, with these filters, from the start of a span."""
    since = localtime(span.since)
    query = {
        **filters,
        "created_at_from_0": f"{since:%Y-%m-%d}",
        "created_at_from_1": f"{since:%H:%M}",
    }
    return f"{reverse('admin:generation_generationlog_changelist')}?{urlencode(query)}"


def spending_url(period: Period, parameter: str, key: str) -> str:
    """Returns the address of the page of one user (`user`) or API key (`api_key`)."""
    query = urlencode({parameter: key, "period": period.name})
    return f"{reverse('admin:generation_generationlog_spending')}?{query}"
