"""A provider's bad minute, in real time and over the wire.

    python benchmarks/outage.py [--rate 100] [--status 529] [--outage 60]

Healthy traffic for ten seconds, then every call fails with `--status` for `--outage` seconds,
then the provider is well again. Printed: what callers offered, what the provider got, how soon
the circuit opened and how soon callers were answered again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop

from generation.conf import validate
from generation.llm.client import LLMClient
from generation.records import Prompt
from tests.support.dialects import AnthropicDialect
from tests.support.provider import Provider, says

HEALTHY_S = 10
RECOVERY_S = 15
LATENCY_S = 2
PROMPT = Prompt("Tell me about staccato.", "", "", "", 1024)


async def rehearse(rate, status, outage):
    dialect = AnthropicDialect()
    answer, fail = says(200, dialect.answer()), says(status, dialect.error("other"))
    sent, outcomes = [], []
    began = time.monotonic() + HEALTHY_S
    ended = began + outage

    async def behave(exchange):
        now = time.monotonic()
        sent.append(now)
        if began <= now < ended:
            await fail(exchange)
        else:
            await asyncio.sleep(LATENCY_S)
            await answer(exchange)

    async def request(llm):
        came = time.monotonic()
        error = (await llm.complete(PROMPT)).error
        outcomes.append((came, "succeeded" if error is None else error.slug, time.monotonic()))

    async with (
        Provider(behave).serve() as server,
        LLMClient.open(validate(dialect.settings(server.url))) as llm,
        asyncio.TaskGroup() as tasks,
    ):
        start = began - HEALTHY_S
        for number in range(int(rate * (HEALTHY_S + outage + RECOVERY_S))):
            await asyncio.sleep(start + number / rate - time.monotonic())
            tasks.create_task(request(llm))
    report(began, ended, sent, outcomes)


def report(began, ended, sent, outcomes):
    offered = sum(began <= came < ended for came, _, _ in outcomes)
    got = sum(began <= at < ended for at in sent)
    refused = [at for _, slug, at in outcomes if slug == "llm-circuit-open"]
    healed = [at for came, slug, at in outcomes if came >= ended and slug == "succeeded"]
    during = Counter(slug for came, slug, _ in outcomes if began <= came < ended)
    after = Counter(slug for came, slug, _ in outcomes if came >= ended)
    print(f"offered during the outage   {offered}")
    print(f"sent to the provider        {got}  ({got / offered:.3f} × offered)")
    opened = f"{min(refused) - began:.2f} s" if refused else "never"
    print(f"circuit open after          {opened}")
    recovered = f"{min(healed) - ended:.2f} s after its end" if healed else "never"
    print(f"first answer came           {recovered}  (the provider takes {LATENCY_S} s)")
    last = max((at for at in refused if at >= ended), default=ended)
    print(f"last request refused came   {last - ended:.2f} s after its end")
    print(f"outcomes during             {dict(during)}")
    print(f"outcomes after              {dict(after)}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rate", type=float, default=100)
    options.add_argument("--status", type=int, default=529)
    options.add_argument("--outage", type=float, default=60)
    arguments = options.parse_args()
    uvloop.run(rehearse(arguments.rate, arguments.status, arguments.outage))


if __name__ == "__main__":
    main()
