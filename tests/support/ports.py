"""Ports for servers that are given theirs before they listen."""

from __future__ import annotations

import os
import random
import socket

WORKERS = 64
_given: set[int] = set()


def free_port() -> int:
    """One that no client, server or other worker is given by chance before ours listens there."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(10_000 + worker % WORKERS, 32_000, WORKERS)  # below those that a kernel gives
    while True:
        port = random.choice(mine)
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                _given.add(port)
                return port
