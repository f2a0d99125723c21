"""What a caller gets where a limit refuses it, and what answers say of its limits."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from generation.errors import (
    BudgetClosed,
    BudgetExhausted,
    BudgetReserved,
    RateLimited,
    RequestExceedsLimit,
    TooManyAtOnce,
)
from generation.llm.prices import NANO

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from generation.errors import LimitReached
    from generation.limits.blocks import Block
    from generation.limits.rules import Rule

RESERVED_RETRY_S = 4.0  # by then idle parts are given back, and many calls have ended
_UNITS = {"requests": "requests", "tokens": "tokens", "in_flight": "concurrent-requests"}
_WORDS = {"usd": "US dollars", "in_flight": "requests at once"}
_WHOSE = {"key": "the API key's", "user": "the user's", "all": "the service's"}


def refusal(
    block: Block, wanted: int, now: datetime, *, is_own: bool, fitting_max_tokens: int | None = None
) -> LimitReached:
    """Returns the error for a call that takes `wanted`. `is_own`: the caller may read the amounts;
    `fitting_max_tokens` is for a call that asks for more than the whole limit."""
    rule, amount = block.rule, block.amount
    members = describe(block, now, is_own=is_own)
    what = f"{_WHOSE[rule.scope]} limit of {_WORDS.get(rule.unit, rule.unit)}"
    if rule.window:
        what += " in all" if rule.window == "ever" else f" per {rule.window}"
    if amount == 0:
        return BudgetClosed(f"{what} is 0", members=members)
    if rule.unit == "in_flight":
        return TooManyAtOnce(f"{what} is reached", retry_after=1, members=members)
    if not rule.is_budget:
        seconds = _seconds_until(block, wanted)
        members["resets_at"] = _iso(now + timedelta(seconds=seconds), rule)
        return RateLimited(f"{what} is reached", retry_after=seconds, members=members)
    return _budget_refusal(block, wanted, now, what, members, fitting_max_tokens)


def _budget_refusal(  # noqa: PLR0913, PLR0917  # facts
    block: Block,
    wanted: int,
    now: datetime,
    what: str,
    members: dict[str, Any],
    fitting_max_tokens: int | None,
) -> LimitReached:
    amount = block.amount
    if wanted > amount:
        hint = ""
        if fitting_max_tokens is not None and fitting_max_tokens > 0:
            hint = f"; with a max_tokens of {fitting_max_tokens} it would fit"
            members["max_tokens"] = fitting_max_tokens
        return RequestExceedsLimit(
            f"the request may cost more than the whole of {what}{hint}", members=members
        )
    if block.used + wanted <= amount:
        return BudgetReserved(
            f"what is left of {what} is reserved by requests under way",
            retry_after=RESERVED_RETRY_S,
            members=members,
        )
    if block.window.end is None:
        return BudgetClosed(f"{what} is used up", members=members)
    seconds = max((block.window.end - now).total_seconds(), 1)
    return BudgetExhausted(f"{what} is used up", retry_after=seconds, members=members)


def describe(block: Block, now: datetime, *, is_own: bool) -> dict[str, Any]:
    """Returns what an answer says about a limit, with its amounts if they are the caller's own."""
    rule = block.rule
    end = block.window.end
    said: dict[str, Any] = {
        "violated-policies": [rule.name],
        "scope": rule.scope,
        "unit": rule.unit,
        "window": rule.window or None,
        "resets_at": _iso(end, rule) if end and end > now else None,
    }
    if is_own:
        committed = max(block.amount - block.left, 0)
        used = min(block.used, committed) if rule.is_budget else 0
        said["limit"] = written(block.amount, rule.unit)
        said["used"] = written(used if rule.is_budget else committed, rule.unit)
        said["reserved"] = written(max(committed - used, 0) if rule.is_budget else 0, rule.unit)
    return said


def stand(block: Block, now: datetime) -> dict[str, Any]:
    """Returns how a limit of the caller's own stands."""
    said = describe(block, now, is_own=True)
    rule = block.rule
    target = ":".join(filter(None, (rule.provider, rule.model)))
    return {
        "policy": said.pop("violated-policies")[0],
        **said,
        "left": written(max(block.left + block.free, 0), rule.unit),
        "target": target or None,
        "is_enforced": rule.is_enforced,
    }


def written(amount: int, unit: str) -> str | int:
    """Returns an amount as people write it: dollars as a decimal, all else as a number."""
    if unit != "usd":
        return amount
    whole, rest = divmod(abs(amount), NANO)
    sign = "-" if amount < 0 else ""
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def headers(blocks: Iterable[Block], now: float, style: str) -> dict[str, str]:
    """Returns what is left of a caller's limits as this process knows it, the scarcest first. `now`
    is by the database's clock, as a timestamp."""
    if style == "off":
        return {}
    found = [(block, _left(block)) for block in blocks]
    if not found:
        return {}
    found.sort(key=_share_left)
    asked: dict[str, str] = {}
    if style in {"draft", "both"}:
        asked["RateLimit-Policy"] = ", ".join([_policy(block) for block, _left in found])
        asked["RateLimit"] = ", ".join(
            [
                f'"{block.rule.name}";r={left};t={_reset_s(block, left, now)}'
                for block, left in found
            ]
        )
    if style in {"openai", "both"}:
        for unit in ("requests", "tokens"):
            for block, left in found:
                if block.rule.unit == unit:
                    asked[f"x-ratelimit-limit-{unit}"] = str(block.amount)
                    asked[f"x-ratelimit-remaining-{unit}"] = str(left)
                    asked[f"x-ratelimit-reset-{unit}"] = go_duration(_reset_s(block, left, now))
                    break
    return asked


def go_duration(seconds: int) -> str:
    """1 → 1s, 360 → 6m0s, 3600 → 1h0m0s: as OpenAI writes it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _policy(block: Block) -> str:
    if not block.policy:
        rule = block.rule
        parts = [f'"{rule.name}"', f"q={block.amount}"]
        if rule.refill_s:
            parts.append(f"w={rule.refill_s}")
        elif block.window.end is not None:
            seconds = (block.window.end - block.window.start).total_seconds()
            parts.append(f"w={seconds:.0f}")
        if rule.unit != "requests":
            parts.append(f'qu="{_UNITS.get(rule.unit, "nano-usd")}"')
        block.policy = ";".join(parts)
    return block.policy


def _left(block: Block) -> int:
    return max(block.free + max(block.left, 0), 0)


def _share_left(found: tuple[Block, int]) -> float:
    return found[1] / (found[0].amount or 1)


def _reset_s(block: Block, left: int, now: float) -> int:
    """Returns in how many seconds all of it is there again."""
    if block.rule.refill_s:
        taken = block.amount - left
        return -(-taken * block.rule.refill_s // (block.amount or 1)) if taken > 0 else 0
    return 0 if block.ends_at is None else max(math.ceil(block.ends_at - now), 0)


def _seconds_until(block: Block, wanted: int) -> float:
    """Returns when a rate lets a call through that it refuses now."""
    missing = block.threshold(wanted) - max(block.free, 0) - block.left
    return max(missing * (block.rule.refill_s or 1) / block.amount, 1)


def _iso(moment: datetime, rule: Rule) -> str:
    return moment.astimezone(rule.zone).isoformat(timespec="seconds")
