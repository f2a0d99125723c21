#!/usr/bin/env python3
import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.core.management import execute_from_command_line
        from django.db import OperationalError
    except ImportError as error:
        raise SystemExit(
            f"staccato: {error}. `make run` installs the requirements into .venv; or use the"
            " Python of an environment in which requirements.txt is installed."
        ) from error
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:
        if "--traceback" in sys.argv:
            raise
        raise SystemExit(
            f"staccato: the database can't be used: {error}. Is DATABASE_URL right?"
            " --traceback shows more."
        ) from error


if __name__ == "__main__":
    main()
