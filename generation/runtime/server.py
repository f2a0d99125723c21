"""What the server's command line says: how many processes serve, and at which address."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_UVICORN = "uvicorn"
_SERVERS = frozenset({_UVICORN, "gunicorn", "hypercorn"})


def expected_workers() -> int:
    """Returns how many processes the server starts. Each sees the command line of all."""
    server = _server()
    candidates = [_option("--workers", "-w" if server != _UVICORN else "")] if server else []
    if server == _UVICORN:
        candidates.append(os.environ.get("UVICORN_WORKERS", ""))
    candidates.append(os.environ.get("WEB_CONCURRENCY", ""))
    for given in candidates:
        if given.isdecimal() and int(given):
            return int(given)
    return 1


def address() -> str:
    """Returns where the server listens; '' if the command line doesn't say."""
    server = _server()
    if server == _UVICORN:
        if path := _option("--uds"):
            return f"unix:{path}"
        if descriptor := _option("--fd"):
            return f"file descriptor {descriptor}"
        host = _option("--host") or os.environ.get("UVICORN_HOST") or "127.0.0.1"
        port = _option("--port") or os.environ.get("UVICORN_PORT") or "8000"
        return f"{f'[{host}]' if ':' in host else host}:{port}"
    if server:
        return _option("--bind", "-b") or "127.0.0.1:8000"
    if sys.argv[1:2] == ["runserver"]:
        given = next((word for word in sys.argv[2:] if not word.startswith("-")), "8000")
        return f"127.0.0.1:{given}" if given.isdecimal() else given
    return ""


def _server() -> str:
    program = Path(sys.argv[0]) if sys.argv else Path()
    name = program.parent.name if program.stem == "__main__" else program.stem
    return name if name in _SERVERS else ""


def _option(*names: str) -> str:
    """The option's last value, as `--name value`, `--name=value` or `-nvalue`; '' if not given."""
    found = ""
    words = sys.argv[1:]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for name in filter(None, names):
            if word == name:
                found = following
            elif word.startswith(f"{name}="):
                found = word.partition("=")[2]
            elif len(name) == len("-w") and word.startswith(name):
                found = word[len(name) :]
    return found
