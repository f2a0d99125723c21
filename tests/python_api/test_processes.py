"""The runtime opens at its first use in whichever process asks, closes at its end, and survives a
fork. How it goes under each server, `examples/chat/tests/test_servers.py` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from generation.models import GenerationLog

ROOT = Path(__file__).parents[2]
HOST = "tests.python_api.host"
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

    return run


def test_a_command_leaves_its_row_and_ends(host):
    printed = host(COMMAND)
    assert GenerationLog.objects.get().id.hex == printed.strip()


def test_a_fork_after_the_first_use_harms_neither_process(host):
    host(FORK)
    assert GenerationLog.objects.count() == 4


def test_the_workers_of_a_forked_pool_open_runtimes_of_their_own(host):
    host(POOL)
    assert GenerationLog.objects.count() == 7
