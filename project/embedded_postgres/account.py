"""The account that PostgreSQL runs under, which must not be root."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any


class Account:
    def __init__(self) -> None:
        self.uid = os.geteuid()
        self.name = f"uid {self.uid}"
        self.is_other = self.uid == 0
        self.credentials: dict[str, Any] = {}  # arguments for `subprocess`
        if self.is_other:
            entry = pwd.getpwnam("nobody")
            self.uid, self.gid, self.name = entry.pw_uid, entry.pw_gid, entry.pw_name
            self.credentials = {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.is_other:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_run(self, program: Path) -> bool:
        try:
            done = subprocess.run(  # noqa: S603  # a program of the wheel
                [program, "--version"],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **self.credentials,
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def path_to(self, folder: Path, descriptor: int) -> Path:
        """Returns a path through which this account reaches the folder.

        It may not enter root's folders above that one. An inherited descriptor opens the folder
        itself, and nothing else.
        """
        opened = Path(f"/proc/self/fd/{descriptor}")
        return opened if self.is_other and opened.exists() else folder
