"""What a server's command line says about its workers and its address."""

from __future__ import annotations

import sys

import pytest

from generation.runtime import server

UVICORN = "/venv/lib/uvicorn/__main__.py"
COMMANDS = [
    ([UVICORN, "app"], {}, 1, "127.0.0.1:8000"),
    (["/venv/bin/uvicorn", "app", "--workers", "4"], {}, 4, "127.0.0.1:8000"),
    ([UVICORN, "--workers=4", "app", "--port", "80"], {"WEB_CONCURRENCY": "9"}, 4, "127.0.0.1:80"),
    ([UVICORN, "app"], {"WEB_CONCURRENCY": "9"}, 9, "127.0.0.1:8000"),
    ([UVICORN, "app"], {"UVICORN_WORKERS": "3", "UVICORN_PORT": "81"}, 3, "127.0.0.1:81"),
    ([UVICORN, "app", "--host", "::", "--port=82"], {}, 1, "[::]:82"),
    ([UVICORN, "app", "--uds", "/run/staccato"], {}, 1, "unix:/run/staccato"),
    ([UVICORN, "app", "--fd", "3"], {}, 1, "file descriptor 3"),
    ([UVICORN, "app", "--workers", "many"], {}, 1, "127.0.0.1:8000"),
    (["/bin/gunicorn", "-w", "5", "-b", ":83", "app"], {}, 5, ":83"),
    (["/bin/gunicorn", "-w5", "app", "--bind=h:84"], {}, 5, "h:84"),
    (["/bin/hypercorn", "--workers", "2", "app"], {}, 2, "127.0.0.1:8000"),
    (["manage.py", "runserver", "85"], {}, 1, "127.0.0.1:85"),
    (["manage.py", "runserver", "0.0.0.0:86"], {"WEB_CONCURRENCY": "2"}, 2, "0.0.0.0:86"),
    (["manage.py", "check", "--workers", "7"], {}, 1, ""),
    ([], {}, 1, ""),
]


@pytest.mark.parametrize(("arguments", "variables", "workers", "address"), COMMANDS)
def test_the_command_line_says_how_many_serve_and_where(
    monkeypatch, arguments, variables, workers, address
):
    monkeypatch.setattr(sys, "argv", arguments)
    for name in ("WEB_CONCURRENCY", "UVICORN_WORKERS", "UVICORN_HOST", "UVICORN_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (server.expected_workers(), server.address()) == (workers, address)
