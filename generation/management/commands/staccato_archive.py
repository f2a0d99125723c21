"""`manage.py staccato_archive`: the log's oldest partitions as files, before they are dropped."""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from generation import conf
from generation.database.engine import Database
from generation.errors import StaccatoError
from generation.locks import try_lock
from generation.partitions.archive import ArchiveSpoiled, archive, due
from generation.partitions.catalog import look
from generation.partitions.maintenance import kept_tables

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from datetime import timedelta

    from generation.partitions.catalog import Found


class Command(BaseCommand):
    help = (
        "Write the partitions of the log that are dropped within a week, as NDJSON compressed with"
        " gzip. What is complete is not written again. See also STACCATO_ARCHIVE_FIRST."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIRECTORY", help="where the files go")
        parser.add_argument(
            "--before",
            type=_day,
            metavar="DATE",
            help="write all partitions that lie before this day (UTC), e.g. 2026-01-31",
        )

    def handle(self, *_args: Any, folder: Path, before: datetime | None, **_options: Any) -> None:
        if not folder.is_dir():
            raise CommandError(f"{folder} is not a directory; make it first")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if not try_lock(descriptor):
                raise CommandError(f"another run writes to {folder}")
            self._archive(folder, before)
        except StaccatoError as error:
            raise CommandError(error.detail) from error
        except (OSError, ArchiveSpoiled, DatabaseError) as error:
            raise CommandError(f"{error}. What was written completely is kept.") from error
        finally:
            os.close(descriptor)

    def _archive(self, folder: Path, before: datetime | None) -> None:
        settings = conf.load()
        parts = [
            (found, part)
            for found, kept in asyncio.run(_find(settings))
            for part in due(found, kept, before)
        ]
        for found, part in parts:
            archive(connections[settings.database], found, part, folder, self.stdout.write)
        if not parts:
            self.stdout.write("nothing is due")


async def _find(settings: conf.Settings) -> list[tuple[Found, timedelta]]:
    at = connections.settings[settings.database]
    async with Database.open(settings, at, strict=False) as database:
        tables = kept_tables(settings)
        return [(await look(database, parent), kept) for parent, kept in tables.items()]


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ArgumentTypeError(f"{text} is not a date like 2026-01-31") from None
