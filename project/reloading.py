"""Runs the server as a child process, and replaces it after each change of the code.

The parent holds the socket, so callers wait during a restart instead of being refused.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.supervisors.basereload import BaseReload as ChangeReload
else:
    from uvicorn.supervisors import ChangeReload

logger = logging.getLogger(__name__)

PARENT_POLL_S = 0.5
# System libraries of other systems than Linux may not survive a fork.
FIRST_START: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class Reloader(ChangeReload):
    """uvicorn's reloader, except that it ends if the server is killed, and starts faster.

    A server that exits by itself had an error, which the next change may fix. A killed server
    had none, so waiting for a change would not help.
    """

    def __init__(
        self,
        config: Config,
        target: Callable[[list[socket.socket] | None], None],
        sockets: list[socket.socket],
        when_started: Callable[[], None],
    ) -> None:
        super().__init__(config, target, sockets)
        self.when_started = when_started
        self.killed_by: signal.Signals | None = None

    def startup(self) -> None:
        # The first server inherits what this process has imported, which saves a third of the
        # start. Later ones import everything again.
        self.process = FIRST_START.Process(target=self.target, args=(self.sockets,))
        self.process.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.signal_handler)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: self._check_child())
        self._check_child()
        threading.Thread(target=self.when_started, name="when-started", daemon=True).start()

    def restart(self) -> None:
        self.is_restarting = True
        super().restart()
        self.is_restarting = False
        self._check_child()

    def should_restart(self) -> list[Path] | None:
        return None if self.should_exit.is_set() else super().should_restart()

    def _check_child(self) -> None:
        if self.is_restarting or self.should_exit.is_set():
            return
        code = self.process.exitcode
        if code is not None and code < 0:
            self.killed_by = signal.Signals(-code)
            self.should_exit.set()
        elif code:
            logger.error(
                "the server has stopped; change the code to start it again, or press Ctrl-C"
            )


def end_with_parent() -> None:
    """Send this process SIGTERM once its parent has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
