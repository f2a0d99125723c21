"""`manage.py runserver`: real processes, on a copy of the project with a database of its own."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from generation import locks
from project.embedded_postgres.layout import Layout
from project.management.commands import runserver
from tests.support import forked
from tests.support.ports import free_port
from tests.support.waiting import HANG_S, wait_until

ROOT = Path(__file__).parents[2]
UNSET = {
    "DATABASE_URL",
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "DJANGO_SETTINGS_MODULE",
    "PYTHONDONTWRITEBYTECODE",  # or each start compiles the copy
}


class Checkout:
    check_started_a_database: bool

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        for name in ("project", "generation"):
            # With what is compiled, but for what another process is compiling now.
            skip = shutil.ignore_patterns("*.pyc.*")
            shutil.copytree(ROOT / name, folder / name, ignore=skip)
        shutil.copy(ROOT / "manage.py", folder)

    def start(self, *arguments: str, through: str = "", **more: str) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if name not in UNSET}
        command = [sys.executable, "manage.py", *arguments]
        with self.output.open("wb") as output:
            return subprocess.Popen(
                ["sh", "-c", through, "sh", *command] if through else command,
                cwd=self.folder,
                env={**env, "DEBUG": "1", **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def no_postgres_runs(self) -> bool:
        lock = Layout.of(self.folder / "var").data_lock
        return not lock.exists() or locks.is_free(lock)


class Server:
    """A runserver of that checkout, serving."""

    def __init__(self, checkout: Checkout, *arguments: str, through: str = "") -> None:
        self.port = free_port()
        self.checkout = checkout
        self.process = checkout.start("runserver", str(self.port), *arguments, through=through)
        try:
            wait_until(self.is_up, f"it serves; it says: {checkout.said}")
        except BaseException:
            self.end()
            raise

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.checkout.said
        return self.get("/livez") == 200

    def get(self, path: str) -> int:
        """Returns the status, or 0 without an answer."""
        return self.ask(path)[0]

    def ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def serving_pid(self) -> int:
        """The child that answers, or 0: one that stops drops what it had just accepted."""
        status, body = self.ask("/api/v1/pool")
        return json.loads(body)["process"] if status == 200 else 0

    def end(self) -> None:
        """What a failed test left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    assert made.start("check").wait(HANG_S) == 0, made.said
    made.check_started_a_database = (made.folder / "var").exists()
    assert made.start("migrate").wait(HANG_S) == 0, made.said
    return made


@pytest.fixture
def serve(checkout) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str, **how: str) -> Server:
        servers.append(Server(checkout, *arguments, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.end()
    wait_until(checkout.no_postgres_runs, "PostgreSQL is gone")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_change_replaces_the_server_and_refuses_nobody(checkout, serve):
    server = serve()
    first = server.serving_pid()
    wait_until(lambda: "curl -X POST" in checkout.said, "it says where it is")
    assert f"http://127.0.0.1:{server.port}/api/v1/docs" in checkout.said
    assert "simulated" in checkout.said
    assert server.get("/static/admin/css/base.css") == 200
    refused: list[OSError] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except OSError as error:
                refused.append(error)
            time.sleep(0.01)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        urls = checkout.folder / "project/urls.py"
        good = urls.read_text()
        urls.write_text(good + "\nchanged = True\n")
        wait_until(lambda: server.serving_pid() not in {0, first}, "another process serves")
    finally:
        done.set()
        caller.join()
    assert not refused
    assert checkout.said.count("Application shutdown complete") == 1
    assert checkout.said.count("curl -X POST") == 1

    urls.write_text("this is no Python\n")
    wait_until(lambda: "SyntaxError" in checkout.said, "the error is shown")
    wait_until(lambda: "change the code to start it again" in checkout.said, "it waits")
    assert server.process.poll() is None
    urls.write_text(good)
    wait_until(lambda: server.get("/livez") == 200, "it serves again")

    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
    assert server.process.wait(HANG_S) == 0
    wait_until(checkout.no_postgres_runs, "PostgreSQL is gone")
    assert "Traceback" not in checkout.said.rpartition("Started server process")[2]


def test_a_killed_parent_takes_all_along(checkout, serve):
    server = serve()
    child = server.serving_pid()
    server.process.kill()
    wait_until(lambda: gone(child), "the child is gone")
    assert "Application shutdown complete" in checkout.said
    wait_until(checkout.no_postgres_runs, "PostgreSQL is gone")


def test_a_killed_child_is_reported_and_ends_the_command(checkout, serve):
    server = serve()
    os.kill(server.serving_pid(), signal.SIGKILL)
    assert server.process.wait(HANG_S) == 1
    assert "the server was killed by SIGKILL" in checkout.said
    wait_until(checkout.no_postgres_runs, "PostgreSQL is gone")


def test_without_reload_it_says_that_it_is_open_and_ends_with_who_started_it(checkout, serve):
    server = serve("--noreload", "--stop-with-parent", through='"$@"; true')
    wait_until(lambda: "not required, because DEBUG is on" in checkout.said, "it says so")
    serving = server.serving_pid()
    assert serving != server.process.pid
    server.process.kill()
    wait_until(lambda: gone(serving), "the server is gone")
    wait_until(checkout.no_postgres_runs, "PostgreSQL is gone")


def refused(address: str, **more: str) -> str:
    """What it says where it does not start."""
    env = {name: value for name, value in os.environ.items() if name not in UNSET}
    ended = forked.run("manage.py", "runserver", address, env={**env, "DEBUG": "1", **more})
    assert ended.returncode == 1
    return ended.output


def test_a_port_in_use_is_one_line_that_says_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(str(port))
    assert f"runserver {port + 1}" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_other_machines_are_not_served_without_keys(address):
    said = refused(address)
    assert "set STACCATO_API_KEYS_REQUIRED=1" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("variables", [{"STACCATO_API_KEYS_REQUIRED": "1"}, {"DEBUG": "0"}])
def test_other_machines_are_served_where_keys_are_required(variables):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        said = refused(f"0.0.0.0:{taken.getsockname()[1]}", **variables)
    assert "another process listens there" in said, "it was refused before it listened"


@pytest.mark.parametrize(
    ("address", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_only_the_loopback_is_this_machine_alone(address, is_ours):
    assert runserver.is_loopback(address) is is_ours


def test_checks_start_no_database(checkout):
    assert not checkout.check_started_a_database


def test_djangos_own_options_are_taken():
    parser = runserver.Command().create_parser("manage.py", "runserver")
    taken = parser.parse_args(
        ["[::1]:8001", "--ipv6", "--noreload", "--nothreading", "--nostatic", "--insecure"]
    )
    assert taken.addrport == "[::1]:8001"
    assert taken.use_reloader is False


def test_only_the_projects_own_code_is_watched():
    assert {Path(folder) for folder in runserver.watched()["reload_dirs"]} == {
        ROOT / "project",
        ROOT / "generation",
    }


def test_a_wsgi_server_is_refused_with_the_right_command():
    with pytest.raises(ImproperlyConfigured, match=r"uvicorn project\.asgi:application"):
        importlib.import_module("project.wsgi")
