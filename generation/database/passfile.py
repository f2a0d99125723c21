"""libpq's file of passwords, `~/.pgpass`. asyncpg, where it is given no password,
would look for a host's address in it."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generation.database.dsn import Target

logger = logging.getLogger(__name__)

_FIELD = re.compile(r"((?:\\.|[^:\\])*)(?::|$)")


def password(target: Target, host: str, port: int) -> str | None:
    """Returns the password of the first line that fits."""
    try:
        path = Path(target["passfile"] or Path.home() / ".pgpass")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_mode & 0o077:
            logger.warning("the password file %s is ignored: group or world may read it", path)
            return None
        lines = path.read_text().splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    local = host.startswith("/") or not host
    wanted = ("localhost" if local else host, str(port), target["dbname"], target["user"])
    for line in lines:
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line)]
        if line.startswith("#") or len(fields) <= len(wanted):
            continue
        if all(field in {"*", value} for field, value in zip(fields, wanted, strict=False)):
            return fields[len(wanted)]
    return None
