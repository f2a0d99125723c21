"""Under each server and from each caller: a generation, and its row.

Servers are started once each, with a database that all share, and ended by SIGTERM as in production.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import nbformat
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from nbclient import NotebookClient
from pytest_django.plugin import DjangoDbBlocker

from chat.models import Conversation
from generation.models import GenerationLog
from people.models import User

ROOT = Path(__file__).parents[1]
SERVERS = {
    "uvicorn": "uvicorn --port {port} config.asgi:application",
    "uvicorn --lifespan off": "uvicorn --lifespan off --port {port} config.asgi:application",
    "daphne": "daphne -p {port} config.asgi:application",
    "granian": "granian --interface asgi --port {port} config.asgi:application",
    "hypercorn": "hypercorn -b 127.0.0.1:{port} config.asgi:application",
    "gunicorn threads": "gunicorn -b 127.0.0.1:{port} --threads 4 --preload config.wsgi:application",
    "runserver of daphne": "manage.py runserver --noreload {port}",
    "runserver of Django": "manage.py runserver --noreload --settings tests.plain_runserver {port}",
}
NOTEBOOK = """
import django
django.setup()
from generation import generate
answer = await generate(None, prompt="from a notebook")
print(answer.id)
"""
END_S = 20


class Host:
    """Starts processes of the project on the tests' database."""

    def __init__(self, folder: Path) -> None:
        at = connection.settings_dict
        names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
        given = {name: str(at[key]) for name, key in names.items() if at[key]}
        self.environment = {
            **os.environ,
            "DATABASE_URL": f"postgresql:///{at['NAME']}?{urlencode(given)}",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "JOURNAL_DIR": str(folder / "journal"),
            "LLM_PROVIDER": "parrot",
            "PARROT_PAUSE_S": "0",
            "CELERY_BROKER_URL": "filesystem://",
            "CELERY_FOLDER": str(folder / "celery"),
            "PYTHONPATH": str(ROOT),
        }
        self.log = folder / "output"

    def start(self, command: str) -> subprocess.Popen[bytes]:
        words = command.split()
        if words[0] != "manage.py":
            words = ["-m", *words]
        with self.log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(END_S)

    def printed(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="module")
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Other processes see what this module writes."""
    with django_db_blocker.unblock():
        Conversation.objects.create(owner=User.objects.create_user("grace"), title="Untitled")
        yield
        connection.close()


@pytest.fixture
def host(committed: None, tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(scope="module")
def cookies(committed: None) -> dict[str, str]:
    client = Client()
    client.force_login(User.objects.get(username="grace"))
    return {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}


def free_port() -> int:
    """One that is given to no other socket by chance before the server listens there."""
    while True:
        port = random.randrange(4_000, 10_000)  # below those that a kernel gives
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def wait_until_served(host: Host, process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, host.printed()
            assert time.monotonic() < end, host.printed()
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("server", SERVERS)
def test_each_generation_under_a_server_leaves_one_row(
    host: Host, cookies: dict[str, str], server: str
) -> None:
    before = GenerationLog.objects.count()
    port = free_port()

    def ask(path: str, body: object) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{port}{path}", json=body, timeout=30,
            cookies={**cookies, "csrftoken": "a" * 32}, headers={"X-CSRFToken": "a" * 32},
        )  # fmt: skip

    process = host.start(SERVERS[server].format(port=port))
    try:
        wait_until_served(host, process, port)
        said = {"messages": [{"role": "user", "content": server}]}
        response = ask("/api/v1/llm/generate", said)
        assert response.status_code == 200, response.text + host.printed()
        row = GenerationLog.objects.select_related("body").get(pk=response.json()["id"])
        assert row.body.prompt == server
        assert GenerationLog.objects.count() == before + 1

        path = f"/api/v1/conversations/{Conversation.objects.get().pk}/title"
        synchronous = ask(path, None)
        assert synchronous.status_code == 200, synchronous.text + host.printed()
        assert GenerationLog.objects.count() == before + 2
    finally:
        host.end(process)


def test_a_celery_worker_generates_and_leaves_one_row(host: Host) -> None:
    before = GenerationLog.objects.count()
    process = host.start(
        "celery -A config worker --pool prefork --concurrency 1 --loglevel WARNING"
    )
    try:
        send = "from chat.tasks import ask_later; ask_later.delay('grace', 'from Celery')"
        subprocess.run(
            [sys.executable, "-c", f"import django; django.setup(); {send}"],
            cwd=ROOT, env=host.environment, check=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while GenerationLog.objects.count() == before:
            assert process.poll() is None, host.printed()
            assert time.monotonic() < end, host.printed()
            time.sleep(0.05)
    finally:
        host.end(process)
    row = GenerationLog.objects.select_related("body").latest("id")
    assert (row.body.prompt, row.status) == ("from Celery", "succeeded")
    assert GenerationLog.objects.count() == before + 1


def test_a_command_generates_and_leaves_one_row(host: Host) -> None:
    before = GenerationLog.objects.count()
    process = host.start("manage.py ask grace once")
    assert process.wait(60) == 0, host.printed()
    assert "You said: “once”" in host.printed()
    assert GenerationLog.objects.count() == before + 1


def test_a_notebook_generates_and_leaves_one_row(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = GenerationLog.objects.count()
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    new: Any = nbformat.v4  # which has no types
    notebook = new.new_notebook(cells=[new.new_code_cell(NOTEBOOK)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    assert GenerationLog.objects.filter(pk=output["text"].strip()).exists()
    assert GenerationLog.objects.count() == before + 1
