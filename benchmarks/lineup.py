"""Who is measured: Staccato, and what a user would pick instead."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

PORTKEY = Path(__file__).with_name("node_modules") / "@portkey-ai/gateway/build/start-server.js"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, OTHER_CORES = {CORES[-1]}, set(CORES[:-1]) or {CORES[-1]}
FLAT = 5000  # the most requests in flight


class Side:
    """Something that serves generations. `series`: the requests in flight it is tried with."""

    def __init__(self, key, title, command, series, env=None, wrk_env=None, headers=()):
        self.key, self.title, self.command, self.series = key, title, command, series
        self.env, self.wrk_env, self.headers = env or {}, wrk_env or {}, headers
        self.cores = SERVER_CORES


def uvicorn(application, *more):
    return [
        sys.executable, "-m", "uvicorn", application, "--port", "{port}", "--backlog", "8192",
        "--no-access-log", "--log-level", "warning",
        "--timeout-keep-alive", "75", *more,  # or a paced caller finds its connection closed
    ]  # fmt: skip


STACCATO_ENV = {
    "DEBUG": "0",
    "SECRET_KEY": "only for the benchmark, which nobody else can reach",
    "LLM_PROVIDER": "anthropic",
    "ANTHROPIC_API_KEY": "k",
    "LLM_TIMEOUT": "120",
    "LOG_LEVEL": "WARNING",
}


def find_sides(staccato_headers):
    everything = (100, 500, 1000, 2000, FLAT)
    staccato = {"env": STACCATO_ENV, "headers": staccato_headers}
    sides = [
        Side("a", "floor: uvicorn + the transport", uvicorn("benchmarks.sides.floor:application"),
             everything),
        Side("b", "Staccato", uvicorn("project.asgi:application"), everything, **staccato),
        Side("c", "article on FastAPI", uvicorn("benchmarks.sides.article:application"),
             (100, 500, 1000)),
        Side("d", "session held across the call", uvicorn("benchmarks.sides.article:application"),
             (100, 500), env={"HELD": "1"}),
        Side("e", "stock Django, ninja, ORM", uvicorn("benchmarks.sides.stock:application"),
             (100, 500)),
    ]  # fmt: skip
    if PORTKEY.is_file() and shutil.which("node"):
        sides.append(portkey())
    if importlib.util.find_spec("granian"):
        command = [
            sys.executable, "-m", "granian", "--interface", "asgi", "--port", "{port}",
            "--backlog", "8192", "--no-ws", "--log-level", "warning", "project.asgi:application",
        ]  # fmt: skip
        sides.append(Side("g", "Staccato on Granian", command, (), **staccato))
    sides.append(
        Side("w", "Staccato, 2 workers",
             uvicorn("project.asgi:application", "--workers", "2"), (), **staccato)
    )  # fmt: skip
    sides[-1].cores = set(CORES[-2:])
    return sides


def portkey():
    body = {"model": "claude-sonnet-5-5", "max_tokens": 1024}
    body["messages"] = [{"role": "user", "content": "Why is the sky blue?"}]
    return Side(
        "p", "Portkey's gateway (no database)",
        ["node", str(PORTKEY), "--port={port}", "--headless"], (100, 500),
        wrk_env={"BENCH_PATH": "/v1/chat/completions", "BENCH_BODY": json.dumps(body)},
        headers=("x-portkey-provider: anthropic", "x-portkey-custom-host: {upstream}/v1",
                 "authorization: Bearer k"),
    )  # fmt: skip
