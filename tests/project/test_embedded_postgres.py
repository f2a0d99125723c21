"""The embedded PostgreSQL: real processes, killed in every way, and what is left of them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from generation import locks
from project import embedded_postgres
from project.embedded_postgres import EmbeddedPostgresError
from project.embedded_postgres.layout import Layout
from tests.support.waiting import HANG_S, wait_until

ROOT = Path(__file__).parents[2]
USER = """
import os, resource, signal, sys, threading
from project import embedded_postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell ran it with &
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(2000, hard), hard))
busy = [os.dup(0) for _ in range(1100)]  # as a service with many callers has
def hold():
    thread = threading.Thread(target=embedded_postgres.hold, args=(sys.argv[1], {"fsync": "off"}))
    thread.start()
    thread.join()
    print("held", flush=True)
hold()
for order in sys.stdin:
    if order == "hold\\n":
        hold()
    elif os.fork() == 0:
        print("forked", os.getpid(), flush=True)
        sys.stdin.read()
"""


class User:
    """A process that holds a server, in a thread that ends, until it gets the order to leave."""

    def __init__(self, base: Path, **how: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, base],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **how,
        )

    def held(self) -> User:
        assert self.process.stdout.readline() == "held\n"
        return self

    def hold_again(self) -> None:
        self.order("hold")
        self.held()

    def order(self, order: str) -> None:
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(HANG_S) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(HANG_S)


class Server:
    """One server as seen from outside."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.place = Layout.of(base)

    def connect(self) -> psycopg.Connection:
        at = embedded_postgres.address(self.base)
        return psycopg.connect(
            host=at["HOST"],
            port=at["PORT"],
            user=at["USER"],
            dbname=at["NAME"],
            autocommit=True,
            connect_timeout=5,
        )

    def answers(self) -> bool:
        try:
            with self.connect() as connection:
                return connection.execute("select 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def pid(self) -> int:
        return int((self.place.data / "postmaster.pid").read_text().split()[0])

    def supervisor_pid(self) -> int:
        return int(Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()[1])

    def is_gone(self) -> bool:
        return locks.is_free(self.place.data_lock)


@pytest.fixture(scope="module")
def shared_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept from test to test: what one test leaves must not hinder the next."""
    return tmp_path_factory.mktemp("embedded") / "var"


@pytest.fixture
def server(shared_base: Path) -> Iterator[Server]:
    server = Server(shared_base)
    yield server
    wait_until(server.is_gone, "PostgreSQL is gone")


@pytest.fixture
def enter() -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(base: Path, **how: Any) -> User:
        users.append(User(base, **how))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()
        user.process.stdin.close()
        user.process.stdout.close()


def test_an_address_is_only_computed(tmp_path):
    base = tmp_path / ("deep" * 50)
    at = embedded_postgres.address(base)
    assert len(os.fsencode(f"{at['HOST']}/.s.PGSQL.{at['PORT']}")) < 107
    assert at == embedded_postgres.address(base)
    assert not base.exists()
    assert not Path(at["HOST"]).exists()


def test_the_server_leaves_with_its_last_user(server, enter):
    first = enter(server.base).held()
    second = enter(server.base).held()
    pid = server.pid()
    first.leave()
    assert server.answers()
    assert server.pid() == pid
    second.leave()
    wait_until(server.is_gone, "PostgreSQL is gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_leaves_with_a_user_that_is_killed(server, enter, number):
    user = enter(server.base).held()
    user.process.send_signal(number)
    user.process.wait(HANG_S)
    wait_until(server.is_gone, "PostgreSQL is gone")


def test_a_killed_supervisor_takes_the_server_along_and_both_come_back(server, enter):
    enter(server.base).held()
    killed = server.pid()
    os.kill(server.supervisor_pid(), signal.SIGKILL)
    wait_until(lambda: server.answers() and server.pid() != killed, "another server")


def test_a_killed_server_comes_back(server, enter):
    user = enter(server.base).held()
    killed = server.pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.answers() and server.pid() != killed, "another server")
    user.hold_again()
    assert server.answers()


def test_the_next_hold_does_not_wait_for_the_server_to_come_back_by_itself(server, enter):
    user = enter(server.base).held()
    os.kill(server.pid(), signal.SIGKILL)
    wait_until(server.is_gone, "PostgreSQL is gone")
    user.hold_again()
    assert server.answers()


def test_what_was_committed_survives_the_kill_of_everything(server, enter):
    user = enter(server.base).held()
    with server.connect() as connection:
        connection.execute("create table kept (word text)")
        connection.execute("insert into kept values ('here')")
    user.kill()
    os.kill(server.supervisor_pid(), signal.SIGKILL)
    enter(server.base).held()
    with server.connect() as connection:
        assert connection.execute("select word from kept").fetchone() == ("here",)


def test_a_recycled_pid_does_not_pass_for_a_server(server, enter):
    enter(server.base).held().leave()
    wait_until(server.is_gone, "PostgreSQL is gone")
    mine = f"{os.getpid()}\n{server.place.data}\n0\n5432\n{server.place.sockets}\n\n0 0\nready\n"
    (server.place.data / "postmaster.pid").write_text(mine)
    wait_until(lambda: not server.place.sockets.exists(), "the sockets are gone")
    server.place.sockets.mkdir(mode=0o700)
    (server.place.sockets / ".s.PGSQL.5432.lock").write_text(mine)
    (server.place.sockets / ".s.PGSQL.5432").touch()
    enter(server.base).held()
    assert server.answers()


def test_four_that_start_at_once_share_one_server(tmp_path, enter):
    server = Server(tmp_path / "var")
    users = [enter(server.base) for _ in range(4)]
    for user in users:
        user.held()
    assert server.answers()
    pid = server.pid()
    for user in users[:3]:
        user.kill()
    assert server.pid() == pid
    assert server.answers()
    users[3].leave()
    wait_until(server.is_gone, "PostgreSQL is gone")


def test_restarts_in_a_row(server, enter):
    for _ in range(10):
        user = enter(server.base).held()
        assert server.answers()
        user.leave()


def test_the_next_start_repairs_one_that_was_killed_half_way(tmp_path, enter):
    server = Server(tmp_path / "var")
    draft = server.place.data.with_suffix(".new")
    user = enter(server.base)
    wait_until((draft / "PG_VERSION").exists, "a half-made folder")
    user.kill()
    enter(server.base).held()
    assert server.answers()
    assert not draft.exists()


def test_a_removed_socket_folder_is_made_again(server, enter):
    user = enter(server.base).held()
    shutil.rmtree(server.place.sockets)
    user.hold_again()
    assert server.answers()


def test_nothing_stays_in_the_temporary_folder(server, enter):
    enter(server.base).held().leave()
    wait_until(lambda: not server.place.sockets.exists(), "the sockets are gone")


def test_a_forked_child_holds_the_server_too(server, enter):
    user = enter(server.base).held()
    user.order("fork")
    child = int(user.process.stdout.readline().removeprefix("forked "))
    try:
        user.kill()
        assert not server.is_gone()
        assert server.answers()
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until(server.is_gone, "PostgreSQL is gone")


def test_a_terminal_does_not_reach_the_server(server, enter):
    enter(server.base).held()
    assert os.getsid(server.supervisor_pid()) != os.getsid(0)
    assert os.getsid(server.pid()) != os.getsid(0)


def test_a_server_that_does_not_start_reports_why(tmp_path):
    with pytest.raises(EmbeddedPostgresError, match='"work_mem": "plenty"'):
        embedded_postgres.hold(tmp_path, {"work_mem": "plenty", "fsync": "off"})
    shutil.rmtree(Layout.of(tmp_path).sockets)


@pytest.mark.parametrize("what", ["open to others", "a link", "a file"])
def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path, what):
    folder = Layout.of(tmp_path).sockets
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    if what == "a link":
        folder.symlink_to(ours)
    elif what == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o755)
    try:
        with pytest.raises(EmbeddedPostgresError, match="remove it"):
            embedded_postgres.hold(tmp_path)
    finally:
        folder.rmdir() if what == "open to others" else folder.unlink()


def test_a_folder_that_a_stopping_server_removes_under_a_new_user_is_made_again(
    tmp_path, monkeypatch
):
    folder = Layout.of(tmp_path).sockets
    folder.mkdir(mode=0o700)
    removed = []
    genuine = os.open

    def remove_first(path: Any, *more: Any, **named: Any) -> Any:
        if path == folder and not removed:
            removed.append(folder.rmdir())
        return genuine(path, *more, **named)

    monkeypatch.setattr(os, "open", remove_first)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"requirements\.txt"):
        embedded_postgres.hold(tmp_path)  # which gets as far as starting the server
    assert removed, "the folder was never removed: the test patches the wrong call"
    shutil.rmtree(folder)


def test_missing_binaries_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"requirements\.txt"):
        embedded_postgres.hold(tmp_path)
    shutil.rmtree(Layout.of(tmp_path).sockets)


def test_django_starts_it_with_its_first_connection_and_not_before(server, tmp_path):
    script = tmp_path / "settings_here.py"
    script.write_text(
        "from project import embedded_postgres\n"
        "DATABASES = {'default': {'ENGINE': 'project.embedded_postgres',"
        f" **embedded_postgres.address({str(server.base)!r}, fsync='off'),"
        " 'OPTIONS': {'pool': {'min_size': 0, 'max_size': 4, 'timeout': 5}}}}\n"
    )
    code = (
        "import django, os, threading; django.setup()\n"
        "from django.db import connection, connections\n"
        "connection.vendor\n"
        "from generation import locks\n"
        "from project.embedded_postgres.layout import Layout\n"
        f"lock = Layout.of({str(server.base)!r}).data_lock\n"
        "assert locks.is_free(lock)\n"
        "def query():\n"
        "    with connection.cursor() as cursor:\n"
        "        cursor.execute('show fsync'); assert cursor.fetchone() == ('off',)\n"
        "    connection.close()\n"
        "for _ in range(3):\n"
        "    thread = threading.Thread(target=query); thread.start(); thread.join()\n"
        "assert not locks.is_free(lock)\n"
        "query(); connection.close_pool(); print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{tmp_path}",
            "DJANGO_SETTINGS_MODULE": script.stem,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root")
def test_root_runs_it_as_somebody_else_and_opens_no_folder(server, enter):
    parents = {folder: folder.stat().st_mode for folder in server.base.parents}
    enter(server.base).held()
    assert Path(f"/proc/{server.pid()}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert {folder: folder.stat().st_mode for folder in server.base.parents} == parents


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second account")
def test_an_ordinary_user_runs_it_as_themselves(enter):
    nobody = pwd.getpwnam("nobody")
    account: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import psycopg"], cwd=ROOT, check=True, **account)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this interpreter or checkout is closed to others")
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        enter(folder / "var", **account).held().leave()
        assert (folder / "var").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(folder)
