"""Processes that start with the libraries loaded.

To import them takes 1.2 s of the 1.6 s that the service needs to start, and the tests start it a
hundred times. So one process per pytest process imports them, and forks. Each child reads its
environment and Django's settings for itself, as if it had been started by a shell.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from uvicorn import _subprocess

ROOT = Path(__file__).parents[2]
# What is large and looks at neither Django's settings nor the environment when it is imported.
LIBRARIES = [
    "aiohappyeyeballs",
    "asgiref.typing",
    "asyncpg",
    "axes.apps",
    "django.contrib.admin.templatetags.admin_list",
    "django.contrib.admin.utils",
    "django.contrib.auth.management",
    "django.contrib.messages.middleware",
    "django.contrib.sessions.middleware",
    "django.contrib.staticfiles.storage",
    "django.core.handlers.asgi",
    "django.core.management",
    "django.db.backends.postgresql.base",
    "django.db.migrations.executor",
    "django.forms",
    "django.middleware.common",
    "django.middleware.security",
    "django.template.defaulttags",
    "django.test.client",
    "dotenv",
    "encodings.idna",
    "genai_prices",
    "generation.runtime.process",
    "httptools",
    "httpx",
    "opentelemetry.baggage.propagation",
    "opentelemetry.metrics",
    "opentelemetry.propagate",
    "orjson",
    "prometheus_client",
    "psycopg_pool",
    "pydantic",
    "pydantic.networks",
    "servestatic.middleware",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*LIBRARIES, __name__, "tests.support.frozen"])


class Process:
    """`python <module or file> <arguments>`, to be signalled and waited for."""

    def __init__(self, module: str, *arguments: str, env: dict[str, str], output: Path) -> None:
        self._process = _context.Process(target=_run, args=(module, arguments, env, str(output)))
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(0.01)
        return code

    def join(self, seconds: float) -> int:
        """Blocks. Raises TimeoutError."""
        self._process.join(seconds)
        if (code := self.returncode) is None:
            raise TimeoutError(f"process {self.pid} still runs after {seconds} s")
        return code


@dataclass(frozen=True)
class Ended:
    returncode: int
    output: str


def run(module: str, *arguments: str, env: dict[str, str], seconds: float = 120) -> Ended:
    """Run it to its end."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        returncode = Process(module, *arguments, env=env, output=output).join(seconds)
        return Ended(returncode, output.read_text())


def _run(module: str, arguments: tuple[str, ...], env: dict[str, str], output: str) -> None:
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    read = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((read, 0), (written, 1), (written, 2)):
        os.dup2(descriptor, standard)
    os.close(read)
    os.close(written)
    sys.stdin = os.fdopen(0)  # multiprocessing gave it another number
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.argv = [module, *arguments]
    sys.path[:] = [str(ROOT), *(path for path in sys.path if path not in {"", str(ROOT)})]
    if sys.dont_write_bytecode:  # or each start compiles what the one before has compiled
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(ROOT / "build" / "pycache")
    # uvicorn's workers, too: spawned, each would import the libraries for 1.6 s.
    vars(_subprocess)["spawn"] = multiprocessing.get_context("fork")
    warnings.resetwarnings()
    warnings.filterwarnings("error", category=RuntimeWarning)
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
