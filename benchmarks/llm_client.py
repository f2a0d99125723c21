"""CPU per LLM call of the client, beside the bare transport, and httpx-aiohttp if it is installed.

    python benchmarks/llm_client.py [--in-flight 500] [--calls 20000] [--latency 0.1]

The provider is a process of its own that answers like Anthropic after `--latency` seconds.
Each contender runs in a fresh process; the figure is its user+system time per call.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop
from upstream import Upstream

from generation.conf import validate
from generation.records import Prompt

MODEL = "claude-sonnet-5-5"
PROMPT = Prompt("Tell me about staccato. " * 20, "Be brief.", "anthropic", MODEL, 1024)
BODY = json.dumps(
    {
        "model": MODEL,
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": PROMPT.text}],
        "system": PROMPT.system,
    }
).encode()
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}


def serve(pipe, latency):
    async def main():
        async with Upstream(latency).provider.serve() as provider:
            pipe.send(provider.url)
            await asyncio.Event().wait()

    prepare_process(core=0)
    uvloop.run(main())


async def bare_transport(url, run):
    import httpx

    from generation.llm.transport import Transport

    address, headers = httpx.URL(url), httpx.Headers(HEADERS)
    async with Transport(connect_timeout=5) as transport:
        await run(lambda: one_through_httpx_types(httpx, transport, address, headers))


async def httpx_aiohttp_transport(url, run):
    import httpx
    import httpx_aiohttp

    address = httpx.URL(url)
    headers = httpx.Headers({**HEADERS, "content-length": str(len(BODY))})
    limits = httpx.Limits(max_connections=10_000, keepalive_expiry=30)
    async with httpx_aiohttp.AiohttpTransport(limits=limits) as transport:
        await run(lambda: one_through_httpx_types(httpx, transport, address, headers))


async def one_through_httpx_types(httpx, transport, url, headers):
    request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(BODY))
    response = await transport.handle_async_request(request)
    body = bytearray()
    async for chunk in response.stream:
        body += chunk
    await response.stream.aclose()
    assert response.status_code == 200


async def client(url, run):
    from generation.llm.client import LLMClient

    settings = validate(
        {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": url.removesuffix("/v1/messages")}
    )
    async with LLMClient.open(settings) as llm:
        await run(lambda: llm.complete(PROMPT))


CONTENDERS = {
    "bare transport (httpx types)": bare_transport,
    "LLMClient.complete": client,
}
if importlib.util.find_spec("httpx_aiohttp"):
    CONTENDERS["httpx-aiohttp transport"] = httpx_aiohttp_transport


def prepare_process(core):
    """A core of its own, as a production worker has, and enough open files."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core]})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(name, url, in_flight, calls, pipe):
    async def run(call):
        async def worker(number):
            for _ in range(number):
                await call()

        async def wave(number):
            await asyncio.gather(*(worker(number // in_flight) for _ in range(in_flight)))

        await wave(in_flight * 2)  # connections opened, tables loaded
        cpu, wall = time.process_time(), time.perf_counter()
        await wave(calls)
        done = calls // in_flight * in_flight
        pipe.send(((time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - wall)))

    prepare_process(core=-1)
    uvloop.run(CONTENDERS[name](f"{url}/v1/messages", run))


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--in-flight", type=int, default=500)
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--latency", type=float, default=0.1)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there, arguments.latency), daemon=True)
    server.start()
    url = here.recv()
    best = {}
    for _ in range(arguments.rounds):  # the best of interleaved rounds: noise only adds
        for name in CONTENDERS:
            task = context.Process(
                target=measure, args=(name, url, arguments.in_flight, arguments.calls, there)
            )
            task.start()
            while not here.poll(1):
                if not task.is_alive():
                    sys.exit(f"{name} failed")
            figure = here.recv()
            task.join()
            best[name] = min(best.get(name, figure), figure)
    server.kill()
    bare = best["bare transport (httpx types)"][0]
    print(f"{arguments.in_flight} in flight, {arguments.calls} calls, best of {arguments.rounds}")
    for name, (cpu, rate) in best.items():
        print(
            f"{name:30} {cpu:7.0f} µs CPU/call  {rate:7.0f}/s  {cpu / bare:5.2f} × bare transport"
        )


if __name__ == "__main__":
    main()
