"""`manage.py loadtest`: the proof on your own deployment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from argparse import RawDescriptionHelpFormatter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from generation.loadtest import report, verdict
from generation.loadtest import target as service
from generation.loadtest.run import LoadTest, Plan, Refused
from generation.runtime import resources as limits

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from generation.loadtest.run import Result, Sample
    from generation.loadtest.verdict import Verdict

LINE_EVERY_S = 5  # where the output is no terminal
HELP = """\
Send many requests at once to a running service, and watch its connection pool meanwhile.

  manage.py loadtest --concurrency 500
      500 callers, each with one request after the other, for 30 s.

  manage.py loadtest --concurrency 5000 --requests 20000 --users 1-6
      until 20,000 requests are answered, for the users 1 to 6 in turn.

  manage.py loadtest --url https://staging.example.org --api-key "$KEY" --paid
      against another host. --paid is asked for where the service asks a real LLM, since each
      request then costs money; LLM_PROVIDER=simulated costs none.

One request goes first, to see who answers.

What to look at: however many requests wait for the LLM, few connections are checked out, as
each is held for milliseconds. Anything but a 200 is a failure, and one failure is enough for
the exit status 1. The report is one HTML file with plots.

Run it from another machine than the service's where you measure speed: it takes its share of
the processor. 5,000 callers need as many open files (ulimit -n) here, and twice as many there.
"""


class Command(BaseCommand):
    help = HELP
    requires_system_checks = ()

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        service.add_arguments(parser)
        parser.add_argument(
            "--concurrency", type=int, default=100, help="callers at once (%(default)s)"
        )
        length = parser.add_mutually_exclusive_group()
        length.add_argument("--requests", type=int, help="end after so many")
        length.add_argument(
            "--duration", type=float, help="begin requests for so many seconds (30)"
        )
        parser.add_argument(
            "--users", default="1", help="ids to generate for, as 7, 1,2,5 or 1-10 (%(default)s)"
        )
        parser.add_argument(
            "--body", default="{}", metavar="JSON", help="body of each request (%(default)s)"
        )
        parser.add_argument(
            "--timeout", type=float, default=60, help="seconds for one answer (%(default)s)"
        )
        parser.add_argument("--ca-file", help="certificates to trust besides the system's (PEM)")
        parser.add_argument(
            "--report", default="loadtest.html", help="file to write; '' for none (%(default)s)"
        )
        parser.add_argument(
            "--paid", action="store_true", help="the service may ask an LLM that costs money"
        )

    def handle(self, **options: Any) -> None:
        plan = _plan(options)
        self.shown_at: float = -LINE_EVERY_S
        self.is_live = bool(getattr(self.stdout, "isatty", lambda: False)())
        if limits.carry(plan.concurrency) < plan.concurrency:
            raise CommandError(
                f"the open-file limit does not carry {plan.concurrency} callers; raise it with"
                " `ulimit -n`"
            )
        try:
            result = asyncio.run(self.test(plan, paid=options["paid"]))
        except Refused as refusal:
            raise CommandError(str(refusal)) from None
        found = verdict.judge(plan, result)
        self.tell(found)
        if options["report"]:
            self.write(Path(options["report"]), plan, result, found)
        if not found.passed:
            sys.exit(1)

    async def test(self, plan: Plan, *, paid: bool) -> Result:
        async with LoadTest.open(plan) as test:
            provider = (await test.probe()).get("provider", "")
            if provider != "simulated" and not paid:
                raise CommandError(
                    f"{plan.url} asks {provider or 'an LLM'}, and each request may cost money:"
                    " add --paid if that is meant, or serve with LLM_PROVIDER=simulated"
                )
            self.stdout.write(f"{plan.concurrency} callers against {plan.url} ({provider}) …")
            return await test.run(lambda sample: self.show(test, sample))

    def show(self, test: LoadTest, sample: Sample) -> None:
        """The newest state: in place on a terminal, else a line now and then."""
        now = time.monotonic()
        if not self.is_live and now - self.shown_at < LINE_EVERY_S:
            return
        self.shown_at = now
        result, pool = test.result, sample.pool
        line = (
            f"{sample.at:6.1f} s  in flight {sample.in_flight:5}  answered"
            f" {len(result.outcomes):7}  failed {result.faults.total():5}"
        )
        if pool:
            line += (
                f"  |  connections: {pool.checked_out} checked out, {pool.open} open of"
                f" {pool.size};  waiting for the LLM {pool.llm_calls_in_flight:5}"
            )
        if self.is_live:
            self.stdout.write(f"\r{line}\x1b[K", ending="")
        else:
            self.stdout.write(line)
        self.stdout.flush()

    def tell(self, found: Verdict) -> None:
        style = self.style.SUCCESS if found.passed else self.style.ERROR
        self.stdout.write(("\n" if self.is_live else "") + style(found.headline))
        for sentence in found.sentences:
            self.stdout.write(sentence)

    def write(self, path: Path, plan: Plan, result: Result, found: Verdict) -> None:
        day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        try:
            path.write_text(report.render(plan, result, found, day), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"the report can't be written: {error}") from None
        self.stdout.write(f"Report: {path}")


def _plan(options: dict[str, Any]) -> Plan:
    """Raises `CommandError` for what makes no sense."""
    if options["requests"] is None and options["duration"] is None:
        options["duration"] = 30.0
    for name in ("concurrency", "requests", "duration", "timeout"):
        if options[name] is not None and options[name] <= 0:
            raise CommandError(f"--{name} is greater than 0")
    try:
        json.loads(options["body"])
    except ValueError as error:
        raise CommandError(f"--body is not JSON: {error}") from None
    _check_report(options["report"])
    try:
        ca_file = Path(options["ca_file"]).read_bytes() if options["ca_file"] else None
    except OSError as error:
        raise CommandError(f"--ca-file can't be read: {error}") from None
    return Plan(
        url=service.url(options),
        users=_users(options["users"]),
        body=options["body"].encode(),
        headers=service.headers(options),
        concurrency=options["concurrency"],
        requests=options["requests"],
        duration=options["duration"],
        timeout=options["timeout"],
        ca_file=ca_file,
    )


def _check_report(report: str) -> None:
    """Now rather than when the test is over. Raises `CommandError`."""
    path = Path(report).absolute()
    place = path if path.exists() else path.parent
    if report and (path.is_dir() or not os.access(place, os.W_OK)):
        raise CommandError(f"--report {report} can't be written")


def _users(words: str) -> list[int]:
    """'7', '1,2,5' or '1-10'."""
    users: list[int] = []
    try:
        for word in words.split(","):
            first, _, last = word.partition("-")
            users.extend(range(int(first), int(last or first) + 1))
    except ValueError:
        users = []
    if not users:
        raise CommandError(f"--users {words!r}: use 7, 1,2,5 or 1-10")
    return users
