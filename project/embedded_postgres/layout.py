"""Where the parts of one server are, computed from its base folder."""

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

    @classmethod
    def of(cls, base: Path | str) -> Layout:
        return cls(Path(base).resolve())

    @property
    def data(self) -> Path:
        return self.base / f"postgres-{MAJOR}"

    @property
    def data_lock(self) -> Path:
        """Held by the processes of PostgreSQL itself, so if it is free, none is left."""
        return self.base / f"postgres-{MAJOR}.lock"

    @property
    def log(self) -> Path:
        return self.base / f"postgres-{MAJOR}.log"

    @property
    def sockets(self) -> Path:
        """The socket's folder. Users lock it shared, a supervisor that stops exclusively.

        It is not in the base folder, because a socket's path has at most 107 bytes, and not in
        $TMPDIR, which may differ between processes that share a server. Programs that clean
        /tmp leave locked folders alone.
        """
        digest = hashlib.sha256(os.fsencode(self.base)).hexdigest()[:12]
        return Path(f"/tmp/staccato-{os.geteuid()}-{digest}")  # noqa: S108  # owner is checked

    @property
    def start_lock(self) -> Path:
        """Held while a server starts."""
        return self.sockets / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by a supervisor while it lives."""
        return self.sockets / "supervisor.lock"
