"""`manage.py staccato_partition`: whether the log is partitioned, and how a plain table gets so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from generation import conf
from generation.database.engine import Database
from generation.errors import StaccatoError
from generation.models import GenerationBody, GenerationLog
from generation.partitions.convert import CannotConvert, convert
from generation.partitions.maintenance import LogMaintenance, kept_tables

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = (
        "Give plain tables of the log partitions, while the service runs and without copying a"
        " row. A table that can't be converted so is left as it is, and the reason is printed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--convert", action="store_true", required=True, help="do it")

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            asyncio.run(self._convert())
        except CannotConvert as error:
            raise CommandError(str(error)) from None
        except StaccatoError as error:
            raise CommandError(error.detail) from error

    async def _convert(self) -> None:
        settings = conf.load()
        columns = {
            model._meta.db_table: [str(field.column) for field in model._meta.concrete_fields]
            for model in (GenerationLog, GenerationBody)
        }
        at = connections.settings[settings.database]
        async with Database.open(settings, at, strict=False) as database:
            parents = [each for each in kept_tables(settings) if each.table in columns]
            for parent in parents:
                if not await convert(database, parent, columns[parent.table], self.stdout.write):
                    self.stdout.write(f"{parent.table} is partitioned")
            if not await LogMaintenance(database, settings).maintain(self.stdout.write):
                self.stdout.write("another process makes the partitions to come")
