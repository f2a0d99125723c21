"""The test database: migrated once for all workers of pytest-xdist, each of which has a copy.

To migrate takes two seconds of a core, to copy a tenth of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_databases

from tests.support.admin import NOON
from tests.support.partitions import make_room


def folder_of_the_run(tmp_path_factory) -> Path:
    """The same for all workers of a run, and for no other run."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


class OwnDatabase:
    """A copy of the run's database, in place of the default one."""

    def __init__(self, folder: Path) -> None:
        """Make it. `folder` is the run's."""
        self._folder = folder
        self._before = connection.settings_dict["NAME"]
        self._is_made = folder / "database.made"
        with self._alone():
            # Each worker that may need the original holds this lock, together with the others.
            self._in_use = (folder / "database.in-use").open("w")
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
            if self._is_made.exists():
                connection.settings_dict["NAME"] = connection.settings_dict["TEST"]["NAME"]
            else:
                self._make_original()
        self._original = connection.settings_dict["NAME"]
        copy = os.environ.get("PYTEST_XDIST_WORKER", "copy")
        connection.creation.clone_test_db(copy, verbosity=0, autoclobber=True)
        named = connection.creation.get_test_db_clone_settings(copy)
        connection.settings_dict["NAME"] = named["NAME"]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "database.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_original(self) -> None:
        setup_databases(verbosity=0, interactive=False, serialized_aliases=())
        call_command("staccato_groups", verbosity=0, stdout=io.StringIO())
        with connection.cursor() as cursor:
            make_room(cursor, *(NOON - timedelta(days=days) for days in range(3)))
        connection.close()  # PostgreSQL copies no database that is in use
        self._is_made.touch()

    def remove(self) -> None:
        """The last worker removes the original, too."""
        self._drop(connection.settings_dict["NAME"])
        with self._alone(), contextlib.suppress(BlockingIOError):
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._drop(self._original)
            self._is_made.unlink()
        self._in_use.close()
        connection.settings_dict["NAME"] = self._before

    def _drop(self, name: str) -> None:
        connection.close()
        with connection._nodb_cursor() as cursor:
            # What a killed service left is still connected.
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
