"""`manage.py loadtest`: measure your own deployment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from argparse import RawDescriptionHelpFormatter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from generation import user_keys
from generation.llm.transport import trust
from generation.loadtest import report, target, verdict
from generation.loadtest.run import PROBES, LLMFails, LoadTest, Plan, Refused
from generation.loadtest.target import Service
from generation.runtime.resources import raise_open_file_limit

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from generation.loadtest.run import Result, Sample
    from generation.loadtest.verdict import Verdict
    from generation.records import UserKey

LINE_EVERY_S = 5  # if the output is not a terminal
_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
HELP = """\
Send many requests at once to a running service, and watch its connection pool.

  manage.py loadtest --concurrency 500
      500 callers send one request after the other for 30 s.

  manage.py loadtest --concurrency 5000 --requests 20000 --users 1-6
      5,000 callers send 20,000 requests, for the users 1 to 6 in turn.

  manage.py loadtest --concurrency 1000 --stream
      1,000 callers ask for a stream and read it to its end: how long until the first token, how
      long the gaps between events, and how many connections are used meanwhile.

  manage.py loadtest --url https://staging.example.org --api-key "$KEY" --paid
      tests another host. A service that calls a real LLM needs --paid, because each request
      then costs money; with LLM_PROVIDER=simulated it costs nothing.

A single request goes first, to learn which provider answers; again, a few times, where the LLM
fails it.

However many requests wait for the LLM, few connections should be checked out, because each is
held for milliseconds. Any answer but a 200 is a failure, and so is a stream that ends without its
last event, `done`; one failure makes the exit status 1.
The report is one HTML file with plots.

To measure speed, run this on another machine than the service, because it takes its share of the
processor. 5,000 callers need as many open files (ulimit -n) here, and twice as many there.
"""


class Command(BaseCommand):
    help = HELP
    requires_system_checks = ()

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        target.add_arguments(parser)
        parser.add_argument(
            "--concurrency", type=int, default=100, help="callers at once (%(default)s)"
        )
        length = parser.add_mutually_exclusive_group()
        length.add_argument("--requests", type=int, help="requests to send in all")
        length.add_argument(
            "--duration", type=float, help="seconds in which requests may begin (30)"
        )
        parser.add_argument(
            "--users",
            default="1",
            help="keys of the users to generate for, e.g. 7, 1,2,5 or 1-10 (%(default)s)",
        )
        parser.add_argument(
            "--body", default="{}", metavar="JSON", help="body of each request (%(default)s)"
        )
        parser.add_argument(
            "--stream", action="store_true", help='ask for streams: adds "stream": true to the body'
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=60,
            help="seconds for one answer, a stream to its end (%(default)s)",
        )
        parser.add_argument("--ca-file", help="certificates to trust besides the system's (PEM)")
        parser.add_argument(
            "--report", default="loadtest.html", help="file to write; '' for none (%(default)s)"
        )
        parser.add_argument(
            "--paid", action="store_true", help="accept that the requests may cost money"
        )

    def handle(self, **options: Any) -> None:
        try:
            plan = _parse(options)
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.shown_at: float = -LINE_EVERY_S
        self.is_live = bool(getattr(self.stdout, "isatty", lambda: False)())
        if raise_open_file_limit(plan.concurrency) < plan.concurrency:
            raise CommandError(
                f"the open-file limit is too low for {plan.concurrency} callers; raise it with"
                " `ulimit -n`"
            )
        try:
            result = asyncio.run(self.test(plan, paid=options["paid"]))
        except Refused as refusal:
            raise CommandError(str(refusal)) from None
        found = verdict.judge(plan, result)
        self.print_verdict(found)
        if options["report"]:
            self.write_report(Path(options["report"]), plan, result, found)
        if not found.passed:
            sys.exit(1)

    async def test(self, plan: Plan, *, paid: bool) -> Result:
        url = plan.service.url
        async with LoadTest.open(plan) as test:
            provider = await self.find_provider(test, paid=paid)
            if provider != "simulated" and not paid:
                raise CommandError(
                    f"{url} calls {provider or 'an LLM'}, and each request may cost money: add"
                    " --paid to accept this, or serve with LLM_PROVIDER=simulated"
                )
            self.stdout.write(f"{plan.concurrency} callers against {url} ({provider}) …")
            return await test.run(lambda sample: self.print_progress(plan, test.result, sample))

    async def find_provider(self, test: LoadTest, *, paid: bool) -> str:
        try:
            return str((await test.probe()).get("provider", ""))
        except LLMFails as failure:
            if paid:
                self.stdout.write(f"{failure}, {PROBES} times in a row; the test goes on.")
                return "an LLM that fails"
            raise CommandError(
                f"{failure}, {PROBES} times in a row, so it is not known which provider answers."
                " Add --paid to test all the same: requests that succeed may cost money"
            ) from None

    def print_progress(self, plan: Plan, result: Result, sample: Sample) -> None:
        """One line that changes on a terminal, else a line every few seconds."""
        now = time.monotonic()
        if not self.is_live and now - self.shown_at < LINE_EVERY_S:
            return
        self.shown_at = now
        line = verdict.progress(plan, result, sample)
        if self.is_live:
            self.stdout.write(f"\r{line}\x1b[K", ending="")
        else:
            self.stdout.write(line)
        self.stdout.flush()

    def print_verdict(self, found: Verdict) -> None:
        style = self.style.SUCCESS if found.passed else self.style.ERROR
        self.stdout.write(("\n" if self.is_live else "") + style(found.headline))
        for sentence in found.sentences:
            self.stdout.write(sentence)

    def write_report(self, path: Path, plan: Plan, result: Result, found: Verdict) -> None:
        day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        try:
            path.write_text(report.render(plan, result, found, day), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"the report can't be written: {error}") from None
        self.stdout.write(f"Report: {path}")


def _parse(options: dict[str, Any]) -> Plan:
    """Raises `ValueError`."""
    if options["requests"] is None and options["duration"] is None:
        options["duration"] = 30.0
    for name in ("concurrency", "requests", "duration", "timeout"):
        if options[name] is not None and options[name] <= 0:
            raise ValueError(f"--{name} must be greater than 0")
    body = _parse_body(options["body"], is_streamed=options["stream"])
    _check_report(options["report"])
    try:
        authorities = Path(options["ca_file"]).read_text("ascii") if options["ca_file"] else None
        if authorities is not None:
            trust.tls(authorities)  # or each call would fail
    except (OSError, ValueError) as error:
        raise ValueError(f"--ca-file can't be read: {error}") from None
    return Plan(
        service=Service.parse(options["url"], options["api_key"], options["header"]),
        users=_parse_users(options["users"]),
        body=body,
        concurrency=options["concurrency"],
        requests=options["requests"],
        duration=options["duration"],
        timeout=options["timeout"],
        authorities=authorities,
        is_streamed=options["stream"],
    )


def _parse_body(text: str, *, is_streamed: bool) -> bytes:
    """Raises `ValueError`."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--body is not JSON: {error}") from None
    if not is_streamed:
        return text.encode()
    if isinstance(body, dict):
        return json.dumps(body | {"stream": True}).encode()
    raise ValueError("--stream needs a --body that is a JSON object")


def _check_report(report: str) -> None:
    """Fails before the test rather than after it. Raises `ValueError`."""
    path = Path(report).absolute()
    place = path if path.exists() else path.parent
    if report and (path.is_dir() or not os.access(place, os.W_OK)):
        raise ValueError(f"--report {report} can't be written")


def _parse_users(text: str) -> list[UserKey]:
    """'7', '1,2,5', '1-10' or other keys, with commas between them; raises `ValueError`."""
    users: list[UserKey] = []
    try:
        for word in text.split(","):
            if found := _RANGE.fullmatch(word):
                users.extend(range(int(found[1]), int(found[2]) + 1))
            else:
                users.append(user_keys.parse(word))
    except ValueError:
        users = []
    if not users:
        raise ValueError(f"--users {text!r}: use 7, 1,2,5 or 1-10, or your users' own keys")
    return users
