#!/usr/bin/env python3
import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise SystemExit(
            f"staccato: {error}. `make run` installs what it needs into .venv; or use the Python"
            " of an environment in which requirements-dev.txt is installed."
        ) from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
