"""`manage.py limit set|list|show|grant|reset|reconcile`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from generation import conf, standing
from generation.api_keys import tokens
from generation.conf import Target
from generation.limits.amounts import parse_amount
from generation.management.users import find_user
from generation.models import ApiKey, Limit

if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = """\
Limit what API keys and users may spend. A change is applied within five seconds.

  manage.py limit set key:backend usd 20 --per month --zone Europe/Berlin
      The key of this name, or with this prefix, may cost $20 in each month. A model without a
      known price is then refused; LLM_PRICES gives it one.

  manage.py limit set each-user tokens 200000 --per minute
  manage.py limit set user:alice in_flight 8
  manage.py limit set all usd 500 --per day --target openai:gpt-6-luna
      Each user for themselves; one user; all together, for one model.

  manage.py limit set key:backend requests 600 --per minute --shadow
      Refuses nothing: metrics show what it would.

  manage.py limit set key:backend usd none --per month
      No limit. 0 allows nothing.

  manage.py limit grant 3 5        $5 more for limit 3, until its window ends
  manage.py limit reset 3          its window starts again
  manage.py limit reconcile        what dead processes hold; --apply gives it back
"""
_SCOPES = {"all": "all", "each-key": "key", "each-user": "user"}


class Command(BaseCommand):
    help = HELP

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        change = actions.add_parser("set", help="Make a limit, or change it.")
        change.add_argument("who", help="key:NAME, user:NAME, each-key, each-user or all.")
        change.add_argument("unit", choices=Limit.Unit.values)
        change.add_argument("amount", help="E.g. 600, or 20.50 of usd; none: no limit; 0 blocks.")
        change.add_argument("--per", choices=Limit.Window.values, default="", dest="window")
        change.add_argument("--target", default="", help="provider:model, or provider.")
        change.add_argument("--zone", default="", help="E.g. Europe/Berlin. Default: UTC.")
        change.add_argument("--shadow", action="store_true", help="Count, and refuse nothing.")
        actions.add_parser("list", help="List all limits, and how they stand.")
        show = actions.add_parser("show", help="Show a limit, and who has used most of it.")
        show.add_argument("id", type=int)
        grant = actions.add_parser("grant", help="Give more until the window ends.")
        grant.add_argument("id", type=int)
        grant.add_argument("amount")
        reset = actions.add_parser("reset", help="Start the window again.")
        reset.add_argument("id", type=int)
        reconcile = actions.add_parser(
            "reconcile", help="Compare what dead processes hold with the rows of the log."
        )
        reconcile.add_argument("--apply", action="store_true", help="Give the difference back.")

    def handle(self, **options: Any) -> None:
        getattr(self, f"do_{options['action']}")(options)

    def do_set(self, options: dict[str, Any]) -> None:
        target = _target(options["target"])
        unit, zone = options["unit"], options["zone"]
        if zone and zone not in available_timezones():
            raise CommandError(f"There is no time zone {zone}.")
        place = {
            **whose(options["who"]),
            "provider": target.provider,
            "model": target.model,
            "unit": unit,
            "window": options["window"],
        }
        limit = Limit.objects.filter(**place).first() or Limit(**place)
        limit.amount = None if options["amount"] == "none" else _amount(options["amount"], unit)
        limit.zone, limit.is_enforced = zone, not options["shadow"]
        try:
            limit.full_clean()
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        limit.save()
        self.write(limit)
        if unpriced := standing.unpriced([limit]):
            self.stderr.write(
                f"It refuses {unpriced}, whose price is unknown; LLM_PRICES can give one."
            )

    def do_list(self, _options: dict[str, Any]) -> None:
        limits = list(Limit.objects.order_by("pk").select_related("api_key", "user"))
        for limit in limits:
            self.write(limit)
        if not limits:
            self.stdout.write("There are no limits.")

    def do_show(self, options: dict[str, Any]) -> None:
        limit = _find(options["id"])
        self.write(limit)
        for each in standing.standings([limit]) if limit.amount is not None else ():
            end = each.window.end
            until = f", until {end.astimezone(each.rule.zone):%Y-%m-%d %H:%M %Z}" if end else ""
            self.stdout.write(
                f"  {each.subject or 'all of it':12} used {each.written(each.used)},"
                f" reserved {each.written(each.reserved)}, left {each.written(each.left)}{until}"
            )

    def do_grant(self, options: dict[str, Any]) -> None:
        limit = _find(options["id"])
        try:
            standing.grant(limit, _amount(options["amount"], limit.unit))
        except ValueError as error:
            raise CommandError(f"{error}.") from None
        self.write(limit)

    def do_reset(self, options: dict[str, Any]) -> None:
        limit = _find(options["id"])
        standing.reset(limit)
        self.stdout.write(f"The window of limit {limit.pk} starts again.")

    def do_reconcile(self, options: dict[str, Any]) -> None:
        found = standing.differences()
        for each in found:
            self.stdout.write(
                f"limit {each.limit_id}, lease {each.lease}: {each.granted} are taken,"
                f" {each.settled} settled; rows of the log have {each.of_rows}"
            )
        if not found:
            self.stdout.write("What the dead have taken is what their rows account for.")
        elif options["apply"]:
            standing.reconcile(found)
            self.stdout.write("Given back what no row accounts for.")
        else:
            self.stdout.write("Nothing is changed; --apply gives back what no row accounts for.")

    def write(self, limit: Limit) -> None:
        self.stdout.write(f"{limit.pk:4}  {describe(limit)}")


def whose(text: str) -> dict[str, Any]:
    """Returns the fields of Limit that say whose it is. Raises `CommandError`."""
    if text in _SCOPES:
        return {"scope": _SCOPES[text], "api_key": None, "user": None}
    kind, _, name = text.partition(":")
    if kind == "user" and name:
        return {"scope": "user", "user": find_user(name), "api_key": None}
    if kind == "key" and name:
        prefix = tokens.parse_prefix(name) or name.removeprefix("stc_")
        keys = list(ApiKey.objects.filter(name=name, revoked_at=None)[:2])
        keys = keys or list(ApiKey.objects.filter(prefix=prefix))
        if len(keys) != 1:
            what = "There is no key" if not keys else "There is more than one key"
            raise CommandError(f"{what} {name}; `manage.py apikey list` lists their prefixes.")
        return {"scope": "key", "api_key": keys[0], "user": None}
    raise CommandError(f"{text}: use key:NAME, user:NAME, each-key, each-user or all.")


def describe(limit: Limit) -> str:
    """Returns a limit in one line."""
    owner = limit.api_key or limit.user
    who = (
        "all"
        if limit.scope == "all"
        else f"{limit.scope} {owner}"
        if owner
        else f"each {limit.scope}"
    )
    target = ":".join(filter(None, (limit.provider, limit.model)))
    rule = standing.rule_of(limit)
    if limit.amount is None:
        amount = "no limit"
    else:
        first = standing.standings([limit])[0]
        amount = first.written(first.amount)
        if not (limit.scope != "all" and owner is None):
            amount += f" ({first.written(first.used)} used, {first.written(first.left)} left)"
    return (
        f"{who}: {amount} {limit.unit}"
        + (f" per {limit.window}" if limit.window and limit.window != "ever" else "")
        + (" in all" if limit.window == "ever" else "")
        + (f" in {rule.zone.key}" if limit.zone else "")
        + (f" for {target}" if target else "")
        + ("" if limit.is_enforced else ", not enforced")
    )


def _find(pk: int) -> Limit:
    limit = Limit.objects.filter(pk=pk).select_related("api_key", "user").first()
    if limit is None:
        raise CommandError(f"There is no limit {pk}; `manage.py limit list` lists them.")
    return limit


def _amount(text: str, unit: str) -> int:
    try:
        return parse_amount(text, unit)
    except ValueError as error:
        raise CommandError(f"{error}.") from None


def _target(text: str) -> Target:
    try:
        targets = conf.load().read_targets(text)
    except ValueError as error:
        raise CommandError(f"--target {text}: {error}.") from None
    if len(targets) > 1:
        raise CommandError("--target takes one; set a limit for each.")
    return targets[0] if targets else Target("", "")
