"""`manage.py apikey create|list|revoke`."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, localtime, make_aware, now

from generation import conf
from generation.api_keys import tokens
from generation.limits.amounts import parse_amount
from generation.limits.windows import BUDGETS
from generation.management.users import find_user
from generation.models import ApiKey, Limit, LogContent

if TYPE_CHECKING:
    from argparse import ArgumentParser

MAX_DAYS = 36_500


class Command(BaseCommand):
    help = "Create, list and revoke API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="Create a key and show it, this one time.")
        create.add_argument("name", help="Who or what uses the key.")
        scope = create.add_mutually_exclusive_group(required=True)
        scope.add_argument("--user", help="For one user, by name or id.")
        scope.add_argument(
            "--users", nargs="+", metavar="USER", help="A service key for these users."
        )
        scope.add_argument("--all-users", action="store_true", help="A service key for all users.")
        create.add_argument(
            "--expires", metavar="WHEN", help="E.g. 90d, 2027-01-31 or 2027-01-31T12:00."
        )
        create.add_argument(
            "--models",
            default="",
            metavar="LIST",
            help="provider:model or provider, separated by commas.",
        )
        create.add_argument(
            "--log-content",
            choices=LogContent.values,
            default="",
            help="What the log keeps of prompts and results, if less than the service does.",
        )
        create.add_argument("--rpm", metavar="N", help="Limit of requests per minute.")
        create.add_argument("--tpm", metavar="N", help="Limit of tokens per minute.")
        create.add_argument(
            "--budget", metavar="USD/WINDOW", help="In US dollars, e.g. 20/month or 5/day."
        )
        create.add_argument("--at-once", metavar="N", help="Limit of requests at once.")
        actions.add_parser("list", help="List all keys, without their secrets.")
        revoke = actions.add_parser(
            "revoke", help="Revoke keys for good; takes effect within 30 seconds."
        )
        revoke.add_argument("prefix", nargs="+", help="The part after stc_, or the whole key.")

    def handle(self, *_args: Any, **options: Any) -> None:
        {"create": self.create_key, "list": self.list_keys, "revoke": self.revoke_keys}[
            options["action"]
        ](options)

    def create_key(self, options: dict[str, Any]) -> None:
        try:
            conf.load().read_targets(options["models"])
        except ValueError as error:
            raise CommandError(f"--models {error}") from None
        limits = _limits(options)
        new = tokens.make(conf.load().pepper)
        key = ApiKey(
            name=options["name"],
            prefix=new.prefix,
            digest=new.digest,
            allowed_models=options["models"],
            log_content=options["log_content"],
            expires_at=parse_moment(options["expires"]) if options["expires"] else None,
        )
        named: list[Any] = [find_user(name) for name in options["users"] or ()]
        if options["user"]:
            key.scope, key.user_id = ApiKey.Scope.USER, find_user(options["user"]).pk
        else:
            key.scope = ApiKey.Scope.ALL if options["all_users"] else ApiKey.Scope.USERS
        with transaction.atomic():
            key.save()
            key.users.set(named)
            for limit in limits:
                limit.api_key = key
                limit.save()
        self.stderr.write("The key is shown only this once:")
        self.stdout.write(new.text)

    def list_keys(self, _options: dict[str, Any]) -> None:
        keys = ApiKey.objects.order_by("pk").select_related("user").prefetch_related("users")
        for key in keys:
            self.stdout.write(
                f"stc_{key.prefix}  {key.state.label:8} for {key.audience:24}"
                f" used {when(key.last_used_at):16} expires {when(key.expires_at):16} {key.name}"
            )
        if not keys:
            self.stdout.write("There are no API keys.")

    def revoke_keys(self, options: dict[str, Any]) -> None:
        prefixes = [
            tokens.parse_prefix(given) or given.removeprefix("stc_") for given in options["prefix"]
        ]
        found = {key.prefix: key for key in ApiKey.objects.filter(prefix__in=prefixes)}
        if missing := [prefix for prefix in prefixes if prefix not in found]:
            raise CommandError(f"There is no key {', '.join(missing)}; no key was revoked.")
        ApiKey.objects.filter(prefix__in=prefixes, revoked_at=None).update(revoked_at=now())
        self.stdout.write(f"Revoked: {', '.join(map(str, found.values()))}")


def _limits(options: dict[str, Any]) -> list[Limit]:
    """Returns the limits of a key to come. Raises `CommandError`."""
    budget, _, window = (options["budget"] or "").partition("/")
    if budget and window not in BUDGETS:
        raise CommandError(f"--budget {options['budget']}: use e.g. 20/month or 5/day.")
    given = [
        ("--rpm", options["rpm"], "requests", "minute"),
        ("--tpm", options["tpm"], "tokens", "minute"),
        ("--budget", budget, "usd", window),
        ("--at-once", options["at_once"], "in_flight", ""),
    ]
    limits = []
    for name, amount, unit, per in given:
        if amount:
            try:
                number = parse_amount(amount, unit)
            except ValueError as error:
                raise CommandError(f"{name} {error}.") from None
            limits.append(Limit(scope="key", unit=unit, amount=number, window=per))
    return limits


def parse_moment(text: str) -> datetime:
    if text.endswith("d") and text[:-1].isdecimal() and 0 < int(text[:-1]) <= MAX_DAYS:
        return now() + timedelta(days=int(text[:-1]))
    try:
        day = parse_date(text)
        moment = datetime.combine(day, time()) if day else parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"--expires {text}: use 90d, 2027-01-31 or 2027-01-31T12:00.")
    moment = make_aware(moment) if is_naive(moment) else moment
    if moment <= now():
        raise CommandError(f"--expires {text}: it is in the past.")
    return moment


def when(moment: datetime | None) -> str:
    return localtime(moment).strftime("%Y-%m-%d %H:%M") if moment else "never"
