"""The service as a user runs it: uvicorn in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from pathlib import Path

from tests.support import forked, http
from tests.support.forked import Process
from tests.support.waiting import HANG_S, PATIENT, until

# As in production, but for TLS. What is secret has a name to be searched for.
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "canary-secret-key",
    "STACCATO_API_KEY_PEPPER": "canary-pepper",
    "SECURE_SSL_REDIRECT": "0",
}


def environment(database_url: str, **env: str) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.support.service_settings",
        "DEBUG": "1",
        "DATABASE_URL": database_url,
        "LLM_SIMULATED_LATENCY": "0",
        "STACCATO_LOG_RETENTION_DAYS": "36500",
        "STACCATO_BODY_RETENTION_DAYS": "36500",
        **PATIENT,
        **env,
    }


def manage(database_url: str, *arguments: str, **env: str) -> str:
    """Run a command of `manage.py`. Returns what it printed."""
    done = forked.run("manage.py", *arguments, env=environment(database_url, **env))
    assert done.returncode == 0, done.output
    return done.output


class Served:
    """What a service is asked over HTTP, wherever it runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def pool(self) -> dict:
        return (await http.request(self.port, "GET", "/api/v1/pool")).json()

    async def metric(self, sample: str) -> float:
        """The value of one line of /metrics, named as it stands there."""
        text = (await http.request(self.port, "GET", "/metrics")).body.decode()
        for line in text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    async def until_pool(self, predicate, what: str) -> dict:
        """Poll /api/v1/pool until it is as wanted."""
        pool: dict = {}

        async def is_as_wanted() -> bool:
            nonlocal pool
            return predicate(pool := await self.pool())

        await until(is_as_wanted, lambda: f"{what}; the pool says {pool}")
        return pool


class Service(Served):
    def __init__(self, process: Process, log: Path) -> None:
        super().__init__(0)
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def memory(self, name: str = "VmRSS") -> int:
        """Bytes that the process holds; by "VmHWM" those that it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    def forget_peak_memory(self) -> None:
        """What it ever held counts from now; proc(5) has it under clear_refs."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    async def until_logged(self, words: str, times: int = 1) -> None:
        """The log is written a moment after what it reports."""
        await until(
            lambda: self.log.count(words) >= times, lambda: f"{words!r} in the log:\n{self.log}"
        )

    def terminate(self) -> None:
        self.process.terminate()

    async def ended(self) -> int:
        async with asyncio.timeout(HANG_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(database_url: str, *options: str, application="project.asgi:application", **env):
    """Serve until the block ends. Environment variables by keyword.

    Each service is a deployment of its own, unless `env` names a journal's folder for several: one
    that shares it counts for a minute what services before it have counted, and stores their rows.
    """
    # A short path, since sockets are below it.
    with tempfile.TemporaryDirectory(prefix="staccato-", dir="/tmp") as folder:
        log = Path(folder) / "log"
        if "STACCATO_JOURNAL_DIR" not in env:
            env |= {"STACCATO_JOURNAL_DIR": f"{folder}/journal", "TMPDIR": folder}
        arguments = [application, "--port", "0", "--backlog", "8192", "--no-access-log", *options]
        process = Process("uvicorn", *arguments, env=environment(database_url, **env), output=log)
        service = Service(process, log)
        try:
            await _until_alive(service)
            yield service
        except BaseException:
            print(service.log)  # noqa: T201  # pytest shows it with the failure
            raise
        finally:
            if process.returncode is None:
                try:
                    process.terminate()
                    await service.ended()
                except ProcessLookupError:
                    raise AssertionError(f"the service died:\n{service.log}") from None
                except TimeoutError:
                    process.kill()
                    await process.wait()
                    raise AssertionError(f"the service did not end:\n{service.log}") from None


@contextlib.contextmanager
def shared(database_url: str, **env: str):
    """The same for several tests, each of which has a loop of its own."""
    with asyncio.Runner() as runner:
        opened = running(database_url, **env)
        service = runner.run(opened.__aenter__())
        try:
            yield service
        finally:
            runner.run(opened.__aexit__(None, None, None))


async def _until_alive(service: Service) -> None:
    async with asyncio.timeout(HANG_S):
        while service.process.returncode is None:
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", service.log):
                service.port = int(found[1])
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"the service did not start:\n{service.log}")
