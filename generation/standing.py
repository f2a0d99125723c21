"""How limits stand: what is used, reserved and left, for operators; and what they do about it."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import F, Sum
from django.utils.timezone import now

from generation import conf
from generation.limits.policies import zone_of
from generation.limits.refusals import written
from generation.limits.rules import Rule
from generation.llm.unpriced import unpriced_targets
from generation.models import GenerationLog, Limit, LimitHolder, LimitLease, LimitWindow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from generation.limits.windows import Window

SUBJECTS = 20  # of a limit that each has for itself: those nearest to it


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one limit, or of one key's or user's share of it, in the window that holds now."""

    rule: Rule
    subject: str
    window: Window
    committed: int  # used, or reserved
    used: int

    @property
    def amount(self) -> int:
        return self.rule.amount_in(self.window)

    @property
    def reserved(self) -> int:
        return max(self.committed - self.used, 0)

    @property
    def left(self) -> int:
        return max(self.amount - self.committed, 0)

    def written(self, amount: int) -> str:
        shown = written(amount, self.rule.unit)
        return f"${shown}" if self.rule.unit == "usd" else f"{shown:,}"


def unpriced(limits: Iterable[Limit]) -> str:
    """Returns which models these limits refuse, because they count dollars and the models have no
    price; '' if none."""
    rules = [
        rule_of(limit)
        for limit in limits
        if limit.unit == "usd" and limit.amount is not None and limit.is_enforced
    ]
    if not rules:
        return ""
    targets = unpriced_targets(conf.load())
    found = [each for each in targets if any(rule.covers(*each) for rule in rules)]
    return ", ".join(map(str, found))


def rule_of(limit: Limit) -> Rule:
    return Rule(
        id=limit.pk,
        scope=limit.scope,
        owner=str(limit.api_key_id or limit.user_id or ""),
        provider=limit.provider,
        model=limit.model,
        unit=limit.unit,
        amount=limit.amount or 0,
        window=limit.window,
        zone=zone_of(limit.zone, limit.pk),
        is_enforced=limit.is_enforced,
        extra=limit.extra,
        extra_start=limit.extra_start,
        generation=limit.generation,
    )


def standings(limits: Iterable[Limit], moment: datetime | None = None) -> list[Standing]:
    """Returns how limits stand now, or at a moment; at least one for each, and of one that each has
    for itself the `SUBJECTS` who are nearest to it, the nearest first."""
    moment = moment or now()
    rules = {limit.pk: rule_of(limit) for limit in limits}
    windows = {pk: rule.window_at(moment) for pk, rule in rules.items()}
    rows = (
        LimitWindow.objects.filter(
            limit_id__in=list(rules), start__in={each.start for each in windows.values()}
        )
        .annotate(settled=Sum("leases__settled"))
        .order_by("pk")
    )
    found: dict[int, list[Standing]] = {pk: [] for pk in rules}
    for row in rows:
        rule, window = rules[row.limit_id], windows[row.limit_id]
        if row.start == window.start and row.generation == rule.generation:
            committed = _drained(rule, row, moment)
            used = row.folded + (row.settled or 0) if rule.is_budget else committed
            found[rule.id].append(Standing(rule, row.subject, window, committed, used))
    return [
        standing
        for pk, rule in rules.items()
        for standing in nlargest(SUBJECTS, found[pk], key=attrgetter("committed"))
        or [Standing(rule, "", windows[pk], 0, 0)]
    ]


def _drained(rule: Rule, row: Any, moment: datetime) -> int:
    committed: int = row.committed
    if rule.refill_s is None:
        return committed
    seconds = max((moment - row.as_of).total_seconds(), 0)
    return max(committed - int(seconds * rule.amount / rule.refill_s), 0)


def grant(limit: Limit, extra: int) -> None:
    """Give a limit so much more until its window ends. Raises `ValueError`."""
    rule = rule_of(limit)
    if not rule.is_budget:
        raise ValueError("only budgets have windows that an override could end with")
    limit.extra, limit.extra_start = extra, rule.window_at(now()).start
    limit.save(update_fields=["extra", "extra_start"])


def reset(limit: Limit) -> None:
    """Start the window again: what was taken of it stays in the rows of before."""
    Limit.objects.filter(pk=limit.pk).update(generation=F("generation") + 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """Of a lease whose process is gone."""

    lease: int
    limit_id: int
    granted: int
    settled: int
    of_rows: int  # what the log's rows settle


def differences() -> list[Difference]:
    """Returns the leases of dead processes where more is taken than the log's rows account for, or
    where the two do not agree."""
    dead = LimitHolder.objects.filter(alive_until__lt=now()).values("run")
    leases = {
        lease.pk: lease
        for lease in LimitLease.objects.filter(run__in=dead).select_related("window")
    }
    # What is over needs no mending.
    now_on = {limit.pk: rule_of(limit) for limit in Limit.objects.exclude(unit="in_flight")}
    budgets = {
        pk: lease
        for pk, lease in leases.items()
        if lease.window.limit_id in now_on
        and lease.window.start == now_on[lease.window.limit_id].window_at(now()).start
    }
    if not budgets:
        return []
    since = min(LimitHolder.objects.filter(run__in=dead).values_list("since", flat=True))
    sums = dict.fromkeys(budgets, 0)
    with connection.cursor() as cursor:
        table = connection.ops.quote_name(GenerationLog._meta.db_table)
        cursor.execute(
            f"SELECT (charge->>'lease')::bigint, sum((charge->>'amount')::bigint)"  # noqa: S608  # a model's name
            f" FROM {table}, jsonb_array_elements(charges) AS charge"
            " WHERE charges IS NOT NULL AND stored_at >= %s"
            " AND (charge->>'lease')::bigint = ANY(%s) GROUP BY 1",
            [since, list(budgets)],
        )
        sums |= dict(cursor.fetchall())
    return [
        Difference(pk, lease.window.limit_id, lease.granted, lease.settled, int(sums[pk]))
        for pk, lease in budgets.items()
        if not lease.granted == lease.settled == int(sums[pk])
    ]


def reconcile(found: Iterable[Difference]) -> None:
    """Take of each window what the log's rows account for, and no more. A row that comes later,
    e.g. from a journal, adds what it settles."""
    with transaction.atomic():
        ids = [each.lease for each in found]
        sums = {each.lease: each.of_rows for each in found}
        window_ids = LimitLease.objects.filter(pk__in=ids).values("window_id")
        # Windows before leases, each in order, as processes lock them.
        windows = {
            window.pk: window
            for window in LimitWindow.objects.filter(pk__in=window_ids)
            .order_by("limit_id", "subject", "start", "generation")
            .select_for_update()
        }
        for lease in LimitLease.objects.filter(pk__in=ids).order_by("pk").select_for_update():
            settled = max(sums[lease.pk], lease.settled)  # a row may have come meanwhile
            LimitWindow.objects.filter(pk=windows[lease.window_id].pk).update(
                committed=F("committed") + settled - lease.granted
            )
            LimitLease.objects.filter(pk=lease.pk).update(granted=settled, settled=settled)
