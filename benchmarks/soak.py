"""Everything at once, for as long as you like; then count what was lost or paid for twice.

    python benchmarks/soak.py [--minutes 20] [--callers 100] [--seed 1]

Two processes of the service, a PostgreSQL of their own and a provider on a real socket. All the
while, PostgreSQL is restarted, kept away longer than a key's lease, and frozen; one of the two
processes is killed and started again; the provider fails in each way; callers leave; half of the
requests have an Idempotency-Key and are repeated after errors, and some after their answer, too.
Prints the laws that must hold with examples of what broke them, and exits with 1 if one did.
Everything is on the loopback interface and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from soak_callers import Callers, Worker
from soak_laws import State, check, report, rss_mib, stored_rows
from soak_provider import Moody

from tests.support import service
from tests.support.postgres import PrivatePostgres

# The lease of a key is 23 s then: pool, LLM and write timeouts and 15 s.
SETTINGS = {
    **service.PRODUCTION,
    "STACCATO_API_KEYS_REQUIRED": "0",
    "LLM_PROVIDER": "anthropic",
    "ANTHROPIC_API_KEY": "a-key",
    "LLM_TIMEOUT": "4",
    "LLM_ATTEMPT_TIMEOUT": "2",
    "DB_POOL_TIMEOUT": "2",
    "DB_COMMAND_TIMEOUT": "4",
    "STACCATO_WRITE_TIMEOUT": "2",
    "LOG_LEVEL": "WARNING",
    # Less than the rows of the requests in flight, so that it fills up.
    "STACCATO_JOURNAL_MAX_BYTES": "262144",
}
RESTART_S = 1.0
BEYOND_A_LEASE_S = 35.0
FREEZES_S = (3.0, 12.0)
CALM_S = (6.0, 12.0)
BETWEEN_KILLS_S = (8.0, 20.0)
DOWN_S = (0.2, 4.0)
GRACE_S = 1.0  # from the last request to a worker until it gets the signal to stop
WARM_UP_S = 60.0
IDLE_S = 65.0  # the pool looks for idle connections to a provider every 30 s, after 30 s
CLOSING_S = 120.0  # for the last keys
REPLAY_S = 60.0  # for the journals to be stored
REST_S = 480.0  # all the above but the soak itself, and the start


class Soak:
    def __init__(
        self, postgres: PrivatePostgres, journal: str, options: argparse.Namespace
    ) -> None:
        self.chance = random.Random(options.seed)
        self.options = options
        self.postgres = postgres
        self.provider = Moody(self.chance)
        self.workers: list[Worker] = []
        self.callers = Callers(lambda: self.workers, self.chance)
        self.happened: Counter[str] = Counter()
        self.logs: dict[str, str] = {}
        self.sizes_mib: list[float] = []  # of the living worker, each second
        self._is_over = asyncio.Event()
        self._env = {**SETTINGS, "STACCATO_JOURNAL_DIR": journal}

    async def run(self) -> bool:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(self.provider.server.serve())
            self._env["ANTHROPIC_BASE_URL"] = server.url
            living = await stack.enter_async_context(self._serving("A"))
            calling = stack.enter_context(_task(self.callers.run(self.options.callers)))
            # Code that only a trouble runs is loaded then, and the pools have grown.
            await self._trouble(WARM_UP_S)
            before = await self._idle_state(living)
            print(f"warmed up; {self.options.minutes:g} minutes begin", flush=True)
            with _task(self._watch(living)):
                await self._trouble(self.options.minutes * 60)
            closed_s = await self._close(calling)
            replayed_s = await self._until_replayed(living)
            after = await self._idle_state(living)
            self.logs["A"] = living.service.log
        rows = await stored_rows(self.postgres.url)
        self._tell(closed_s, replayed_s)
        states = (before, after)
        laws = check(self.callers, self.provider, rows, states, self.logs)
        return report(laws, states, self.sizes_mib)

    async def _trouble(self, seconds: float) -> None:
        """Everything at once, while the callers call."""
        self.callers.is_paused = False
        self._is_over.clear()
        with _task(self.provider.rage()):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._trouble_the_database())
                tasks.create_task(self._kill_the_second())
                await asyncio.sleep(seconds)
                self._is_over.set()

    async def _close(self, calling: asyncio.Task[None]) -> float:
        """Returns how long it took until every key had its answer."""
        began = time.monotonic()
        self.callers.close()
        await asyncio.wait([calling], timeout=CLOSING_S)
        return time.monotonic() - began

    async def _until_replayed(self, living: Worker) -> float:
        began = time.monotonic()
        while time.monotonic() < began + REPLAY_S:
            pool = await living.service.pool()
            if not pool["total"]["journal"]["rows"]:
                break
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def _idle_state(self, living: Worker) -> State:
        await self.callers.pause()
        await living.service.until_pool(
            lambda pool: not pool["requests_in_flight"], "the last requests"
        )
        await asyncio.sleep(IDLE_S)
        return await State.of(living, urlsplit(self.provider.server.url).port)

    # --- what happens meanwhile -----------------------------------------------------------------

    async def _trouble_the_database(self) -> None:
        troubles = itertools.cycle(
            (
                (self._away, RESTART_S),
                (self._freeze, FREEZES_S[0]),
                (self._away, BEYOND_A_LEASE_S),
                (self._freeze, FREEZES_S[1]),
            )
        )
        while await self._wait(self.chance.uniform(*CALM_S)):
            trouble, seconds = next(troubles)
            began = time.monotonic()
            await trouble(seconds)
            self.callers.repeat_since(began)

    async def _away(self, seconds: float) -> None:
        self.happened[f"PostgreSQL away for {seconds:g} s"] += 1
        await asyncio.to_thread(self.postgres.stop_at_once)
        await self._wait(seconds)
        await asyncio.to_thread(self.postgres.start)

    async def _freeze(self, seconds: float) -> None:
        self.happened[f"PostgreSQL frozen for {seconds:g} s"] += 1
        self.postgres.freeze()
        await self._wait(seconds)
        self.postgres.thaw()

    async def _kill_the_second(self) -> None:
        is_on = True
        while is_on:
            async with self._serving("B") as second:
                is_on = await self._wait(self.chance.uniform(*BETWEEN_KILLS_S))
                if is_on:
                    self.happened["kill -9"] += 1
                    second.killed = time.monotonic()
                    second.service.process.kill()
                    await second.service.ended()
            await self._wait(self.chance.uniform(*DOWN_S))

    async def _wait(self, seconds: float) -> bool:
        """Returns whether the soak goes on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)
        return not self._is_over.is_set()

    async def _watch(self, living: Worker) -> None:
        while True:
            self.sizes_mib.append(rss_mib(living.service.process.pid))
            await asyncio.sleep(1)

    @contextlib.asynccontextmanager
    async def _serving(self, name: str):
        async with service.running(
            self.postgres.url, application="benchmarks.soak_application:application", **self._env
        ) as running:
            worker = Worker(name, running)
            self.workers.append(worker)
            try:
                yield worker
            finally:
                self.workers.remove(worker)
                if worker.killed is None:
                    await asyncio.sleep(GRACE_S)
                self.logs[name] = self.logs.get(name, "") + running.log

    def _tell(self, closed_s: float, replayed_s: float) -> None:
        calls = self.callers
        print(f"{calls.requests} requests; outcomes {dict(calls.outcomes.most_common())}")
        print(f"the provider was {dict(self.provider.did.most_common())}")
        print(", ".join(f"{what}: {times} times" for what, times in self.happened.items()))
        print(
            f"longest answer {calls.longest_s:.1f} s; keys all answered {closed_s:.1f} s after the"
            f" last fault, journals stored {replayed_s:.1f} s later"
        )


@contextlib.contextmanager
def _task(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    postgres, journal = PrivatePostgres(), tempfile.mkdtemp(prefix="staccato-soak-")
    try:
        postgres.start()
        service.manage(postgres.url, "migrate", "--verbosity", "0")
        service.manage(postgres.url, "seed_demo")
        soak = Soak(postgres, journal, options)
        bounded = asyncio.wait_for(soak.run(), options.minutes * 60 + REST_S)
        return 0 if asyncio.run(bounded) else 1
    finally:
        postgres.remove()
        shutil.rmtree(journal, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
