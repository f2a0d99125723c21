"""`manage.py poolsize`: how many connections the hot path needs, and whether there are as many."""

from __future__ import annotations

import urllib.error
import urllib.request
from argparse import RawDescriptionHelpFormatter
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections

from generation import conf
from generation.database import sizing
from generation.loadtest import target as service
from generation.runtime.connections import budget as connection_budget
from generation.telemetry.snapshot import PoolPage

if TYPE_CHECKING:
    from argparse import ArgumentParser

ANSWER_LIMIT_S = 10
HELP = """\
How many database connections the service needs.

Demand is driven by the time spent in the database, not by the LLM:
100 requests at once that spend 50 of their 4000 ms there need 100 × 50 / 4000 = 1.25.

  manage.py poolsize --concurrency 100 --db-ms 50 --total-ms 4000
      computes it from figures of yours.

  manage.py poolsize --url https://example.org --api-key "$KEY"
      takes what you leave out from the running service: the most requests that were at once in
      flight, the time that each held a connection, and the time to its answer, all since start,
      and of all its processes together. Each process has a pool, for its share of the demand.

Then all that the workers may open is compared with what PostgreSQL grants. `manage.py check
--database default` compares it too, and the service logs it at start.
"""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """To https, or to a login: it is the first answer that tells what is missing."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


class Command(BaseCommand):
    help = HELP
    requires_system_checks = ()

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--concurrency", type=int, help="requests in flight at once")
        parser.add_argument("--db-ms", type=float, help="ms a request holds a connection")
        parser.add_argument("--total-ms", type=float, help="ms from a request to its answer")
        service.add_arguments(parser)
        parser.add_argument(
            "--workers",
            type=int,
            help="processes that serve (as many as the running service has, WEB_CONCURRENCY, or 1)",
        )

    def handle(self, **options: Any) -> None:
        names = ("concurrency", "db_ms", "total_ms", "workers")
        given = {name: options[name] for name in names if options[name] is not None}
        if not given.keys() >= set(names[:3]):
            given = self.measure(service.url(options), service.headers(options)) | given
        given.setdefault("workers", sizing.expected_workers())
        if min(given.values()) <= 0:
            raise CommandError("concurrency, times and workers are greater than 0")
        if given["db_ms"] > given["total_ms"]:
            raise CommandError("--db-ms is a part of --total-ms, and so not greater")
        self.stdout.write(sizing.PoolSize(**given).steps)
        self.stdout.write("")
        self.compare(given["workers"])

    def measure(self, url: str, headers: list[tuple[str, str]]) -> dict[str, Any]:
        page = self.fetch(f"{url}/api/v1/pool", headers)
        workers = len(page.answering)
        answered, holds = page.total.requests_answered, page.total.holds
        if not answered.count:
            raise CommandError(
                f"{url} has answered no request yet, so there is nothing to measure: send some"
                " (manage.py loadtest), or give --concurrency, --db-ms and --total-ms"
            )
        db_ms = holds.count * holds.mean_ms / answered.count
        processes = f", by {workers} processes" if workers > 1 else ""
        self.stdout.write(
            f"{url} since its start: {answered.count} requests answered{processes}, at most"
            f" {page.total.peak_requests_in_flight} at once, in {answered.mean_ms:.0f} ms on"
            f" average;\nconnections were held {holds.count} times for"
            f" {holds.mean_ms:.3g} ms, which is {db_ms:.3g} ms for each request.\n\n"
        )
        return {
            "concurrency": page.total.peak_requests_in_flight,
            "db_ms": round(db_ms, 3),
            "total_ms": round(max(answered.mean_ms, db_ms), 3),
            "workers": workers,
        }

    @staticmethod
    def fetch(url: str, headers: list[tuple[str, str]]) -> PoolPage:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  # http or https
        try:
            with _OPENER.open(request, timeout=ANSWER_LIMIT_S) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            raise CommandError(
                f"{url} answers {error.code} {error.reason}. Where API keys are required, the page"
                f" is for a service's key: give one with --api-key or {service.API_KEY_VARIABLE}"
                " (manage.py apikey create NAME --all-users)"
            ) from None
        except (OSError, HTTPException) as error:
            raise CommandError(
                f"{url} can't be asked ({error}): start the service, name it with --url, or give"
                " --concurrency, --db-ms and --total-ms"
            ) from None
        try:
            return PoolPage.parse(content)
        except ValueError:
            raise CommandError(f"{url} is not Staccato's pool page") from None

    def compare(self, workers: int) -> None:
        try:
            found = connection_budget(conf.load(), workers)
        except Error as error:
            self.stdout.write(f"The database can't be asked for its limits: {error}")
            return
        finally:
            connections.close_all()
        if found is None:
            self.stdout.write(
                "DB_POOL_MODE is pgbouncer-transaction: set PgBouncer's default_pool_size to the"
                " demand of all workers, and its max_client_conn to all that they may open."
            )
            return
        self.stdout.write(f"As set now, {found.verdict}.")
        if not found.fits:
            self.stdout.write(self.style.WARNING(found.remedy))
