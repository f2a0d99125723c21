"""Windows of limits that do not end while a test runs."""

from __future__ import annotations

from datetime import UTC, datetime


def zone_of_noon() -> str:
    """Returns a time zone in which it is about noon. A day, week or month there is far from its
    end, where one in UTC may end between two requests, so that the second finds nothing used."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"  # its sign is that of POSIX: east is negative
