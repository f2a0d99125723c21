"""`manage.py poolsize`: how many connections the service needs, and whether PostgreSQL has them."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections

from generation import conf
from generation.database import sizing
from generation.loadtest import target
from generation.loadtest.demand import Demand
from generation.loadtest.target import Service, Unusable
from generation.runtime import server
from generation.runtime.connections import budget as connection_budget

if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = """\
How many database connections the service needs.

The time spent in the database drives the demand, not the time spent in the LLM:
100 requests at once that spend 50 of their 4000 ms there need 100 × 50 / 4000 = 1.25.

  manage.py poolsize --concurrency 100 --db-ms 50 --total-ms 4000
      computes the demand from your figures.

  manage.py poolsize --url https://example.org --api-key "$KEY"
      reads the figures that you leave out from the running service: the most requests in flight
      at once, the time that each held a connection, and the time to its answer. They count from
      the start of the service and include all its processes. Each process has a pool of its own,
      for its share of the demand.

The command then compares what all workers may open with what PostgreSQL allows. `manage.py check
--database default` makes the same comparison, and the service logs it at start.
"""


class Command(BaseCommand):
    help = HELP
    requires_system_checks = ()

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--concurrency", type=int, help="requests in flight at once")
        parser.add_argument("--db-ms", type=float, help="ms that a request holds a connection")
        parser.add_argument("--total-ms", type=float, help="ms from a request to its answer")
        target.add_arguments(parser)
        parser.add_argument(
            "--workers",
            type=int,
            help="processes that serve (default: as many as the running service has,"
            " WEB_CONCURRENCY, or 1)",
        )

    def handle(self, **options: Any) -> None:
        names = ("concurrency", "db_ms", "total_ms", "workers")
        given = {name: options[name] for name in names if options[name] is not None}
        if not given.keys() >= set(names[:3]):
            given = self.measure(options) | given
        given.setdefault("workers", server.expected_workers())
        if min(given.values()) <= 0:
            raise CommandError("concurrency, times and workers must be greater than 0")
        if given["db_ms"] > given["total_ms"]:
            raise CommandError("--db-ms is a part of --total-ms and can't be greater")
        self.stdout.write(sizing.PoolSize(**given).steps)
        self.stdout.write("")
        self.compare(given["workers"])

    def measure(self, options: dict[str, Any]) -> dict[str, Any]:
        instead = "give --concurrency, --db-ms and --total-ms"
        try:
            service = Service.parse(options["url"], options["api_key"], options["header"])
            demand = Demand.measured(service.fetch_pool_page())
        except (ValueError, Unusable) as error:
            raise CommandError(f"{error}; or {instead}") from None
        if demand is None:
            raise CommandError(
                f"{service.url} has answered no request yet, so there is nothing to measure:"
                f" send some (manage.py loadtest), or {instead}"
            )
        self.stdout.write(f"{service.url} since its start: {demand}\n\n")
        return {
            "concurrency": demand.concurrency,
            "db_ms": demand.db_ms,
            "total_ms": demand.total_ms,
            "workers": demand.workers,
        }

    def compare(self, workers: int) -> None:
        try:
            found = connection_budget(conf.load(), workers)
        except Error as error:
            self.stdout.write(f"The limits of the database can't be read: {error}")
            return
        finally:
            connections.close_all()
        if found is None:
            self.stdout.write(
                "DB_POOL_MODE is pgbouncer-transaction: set PgBouncer's default_pool_size to the"
                " demand of all workers, and its max_client_conn to all that they may open."
            )
            return
        self.stdout.write(f"With the current settings, {found.verdict}.")
        if not found.fits:
            self.stdout.write(self.style.WARNING(found.remedy))
