"""Where the parts of one server are. Computed from its base folder; nothing is looked up."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

MAJOR = 18  # of PostgreSQL; a data folder belongs to one major version
PORT = "5432"  # names the socket; nothing listens on the network


@dataclass(frozen=True)
class Layout:
    base: Path

    @property
    def data(self) -> Path:
        return self.base / f"postgres-{MAJOR}"

    @property
    def data_lock(self) -> Path:
        """Held by the processes of PostgreSQL themselves, so free means that none is left."""
        return self.base / f"postgres-{MAJOR}.lock"

    @property
    def log(self) -> Path:
        return self.base / f"postgres-{MAJOR}.log"

    @property
    def sockets(self) -> Path:
        """The socket's folder. Its users hold it shared, a supervisor that stops exclusively.

        Not below the base, whose path may exceed the 107 bytes that a socket's may have, and
        not in $TMPDIR, which two processes that share a server may see differently. Cleaners
        of /tmp leave locked folders alone.
        """
        digest = hashlib.sha256(os.fsencode(self.base)).hexdigest()[:12]
        return Path(f"/tmp/staccato-{os.geteuid()}-{digest}")  # noqa: S108  # owner is checked

    @property
    def start_lock(self) -> Path:
        """Held while a server is being started."""
        return self.sockets / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by a supervisor for life."""
        return self.sockets / "supervisor.lock"


def of(base: Path | str) -> Layout:
    return Layout(Path(base).resolve())
