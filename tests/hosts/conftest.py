from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection

ROOT = Path(__file__).parents[2]


class Host:
    """A project with an empty database of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        at = connection.settings_dict
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.hosts.settings",
            "DB_NAME": name,
            **{f"DB_{key}": str(at[key] or "") for key in ("USER", "PASSWORD", "HOST", "PORT")},
            "BASE_DIR": str(folder),
            "USER_KEY": "uuid",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    def run(self, *arguments: str, status: int = 0, **more: str) -> str:
        """Run Python. Returns what it printed, and fails with that if it ends otherwise."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**self.environment, **more}, cwd="/", capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def host(django_db_setup, django_db_blocker, tmp_path):
    name = f"host_{uuid4().hex}"
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield Host(name, tmp_path)
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
