"""The runtime opens at its first use in whichever process asks, closes at its end, and survives a
fork."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from generation.models import GenerationLog
from tests.support import http
from tests.support.postgres import free_port

ROOT = Path(__file__).parents[2]
HOST = "tests.python_api.host"
DJANGO = f"""
from wsgiref.simple_server import make_server
from {HOST} import wsgi
make_server("127.0.0.1", int(sys.argv[1]), wsgi).serve_forever()
"""
SERVERS = {
    "uvicorn": ["uvicorn", "--lifespan", "off", "--port", "{port}", f"{HOST}:application"],
    "daphne": ["daphne", "-p", "{port}", f"{HOST}:application"],
    "hypercorn": ["hypercorn", "-b", "127.0.0.1:{port}", f"{HOST}:application"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}", f"{HOST}:application"],
    "gunicorn": [
        "gunicorn", "-b", "127.0.0.1:{port}", "--threads", "4", "--preload", f"{HOST}:wsgi",
    ],
}  # fmt: skip
COMMAND = f"""
from {HOST} import generate_sync
print(generate_sync(1, prompt="x").id.hex)
"""
FORK = f"""
import os
from {HOST} import generate_sync
generate_sync(1, prompt="parent")
child = os.fork()
generate_sync(1, prompt="both")
if child:
    assert os.waitpid(child, 0)[1] == 0
    generate_sync(1, prompt="parent again")
"""
POOL = f"""
import multiprocessing
from {HOST} import generate_sync

def work(number):
    return generate_sync(1, prompt=str(number)).id.hex

if __name__ == "__main__":
    generate_sync(1, prompt="before the fork")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert len(set(pool.map(work, range(6)))) == 6
        pool.close()
        pool.join()
"""


@pytest.fixture
def host(users, database_url, tmp_path):
    """Runs Python in a process of the host's. Its journals are gone when it has ended well."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }

    def run(code: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", script],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        noise = [line for line in done.stderr.splitlines() if "INFO" not in line]
        assert not [line for line in noise if "Traceback" in line or "Task was" in line], noise
        assert list((tmp_path / "journal").glob("*.journal")) == []
        return done.stdout

    return SimpleNamespace(run=run, environment=environment)


def test_a_command_leaves_its_row_and_ends(host):
    printed = host.run(COMMAND)
    assert GenerationLog.objects.get().id.hex == printed.strip()


def test_a_fork_after_the_first_use_harms_neither_process(host):
    host.run(FORK)
    assert GenerationLog.objects.count() == 4


def test_the_workers_of_a_forked_pool_open_runtimes_of_their_own(host):
    host.run(POOL)
    assert GenerationLog.objects.count() == 7


@pytest.mark.parametrize("server", SERVERS)
async def test_each_server_generates(host, orm, server):
    if importlib.util.find_spec(server) is None:
        pytest.skip(f"{server} is not installed")
    port = free_port()
    words = [word.format(port=port) for word in SERVERS[server]]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, env=host.environment, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for path in ("/async", "/sync"):
            answer = await until_served(port, path)
            assert answer.status == 200, (path, answer.body)
            newest = await GenerationLog.objects.alatest("id")
            assert newest.id.hex in answer.body.decode(), path
    finally:
        process.terminate()
        with contextlib.suppress(ProcessLookupError):
            await asyncio.wait_for(process.wait(), 20)


async def until_served(port: int, path: str):
    async with asyncio.timeout(30):
        while True:
            try:
                return await http.request(port, "GET", path)
            except OSError:
                await asyncio.sleep(0.05)
