"""`manage.py staccato_maintain`: what the service does every hour, by hand or from cron."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from generation import conf
from generation.database.engine import Database
from generation.errors import StaccatoError
from generation.partitions.maintenance import NOW, LogMaintenance
from generation.rollups.upkeep import Rollups
from generation.store import Store

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = (
        "Make the log's partitions for the next eight weeks, drop log rows, texts and usage"
        " records that are past their retention, and compute the rollups."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only print what would be done")

    def handle(self, *_args: Any, dry_run: bool, **_options: Any) -> None:
        try:
            asyncio.run(self._maintain(dry_run=dry_run))
        except StaccatoError as error:
            raise CommandError(error.detail) from error

    async def _maintain(self, *, dry_run: bool) -> None:
        settings = conf.load()
        at = connections.settings[settings.database]
        async with Database.open(settings, at, strict=False) as database:
            maintenance = LogMaintenance(database, settings)
            if dry_run:
                for words in await maintenance.planned():
                    self.stdout.write(f"would have {words}")
            else:
                if not await maintenance.maintain(self.stdout.write):
                    raise CommandError("another process is at it; try again in ten minutes")
                if deleted := await Store(database, settings).usage.purge():
                    self.stdout.write(f"deleted {deleted} usage records")
                await self._roll_up(Rollups(database, settings))
            ahead = await maintenance.measure()
            self.stdout.write(f"partitions are there for the next {ahead.days} days")

    async def _roll_up(self, rollups: Rollups) -> None:
        if not await rollups.follow(every=NOW, limit_s=math.inf):
            raise CommandError("another process computes the rollups; try again in two minutes")
        self.stdout.write("the rollups have all of the log")
        if deleted := await rollups.purge():
            self.stdout.write(f"deleted {deleted} rollups")
