"""What the operators' pages cost with ten million generations in the log.

    python benchmarks/operators.py fill FOLDER [--rows 10000000] [--body-days 7]
    python benchmarks/operators.py measure FOLDER [--runs 15] [--only status]
    python benchmarks/operators.py start FOLDER
    python benchmarks/operators.py stop FOLDER

`fill` makes a PostgreSQL with its data in FOLDER, which outlives the command, and takes ten
minutes. `manage.py staccato_maintain` with FOLDER's address then computes the rollups. `measure`
asks for each page as a person who is logged in: statements and the slowest of them, the buffers
that PostgreSQL touched for it, the page's time, its CPU in this process, and its size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from operators_log import Server, fill

LOGS = "/admin/generation/generationlog/"
LIST = {
    "the newest": "",
    "the next page": "p",
    "status=failed": "status=failed",
    "status=succeeded": "status=succeeded",
    "provider": "provider=gemini",
    "a model with 60 %": "model=claude-sonnet-5-5",
    "a model with 5 %": "model=gpt-6-mini",
    "a rare model": "model=gemini-4-rare",
    "a model that ended": "model=gpt-5-retired",
    "a model that is none": "model=nothing",
    "a common error": "error_type=llm-rate-limited",
    "a rare error": "error_type=llm-bad-reply",
    "stop reason": "stop_reason=max_tokens",
    "a rare stop reason": "stop_reason=refusal",
    "a stop reason that is none": "stop_reason=nothing",
    "cost ≥ $0.05": "cost_min=0.05",
    "cost ≥ $5: none": "cost_min=5",
    "latency ≥ 20 s": "latency_min=20",
    "latency ≥ 150 s": "latency_min=150",
    "tokens ≥ 3500": "tokens_min=3500",
    "retried": "retried=1",
    "fell back": "fell_back=1",
    "a user with many rows": "user=user1",
    "a user with few rows": "user=user1999",
    "an unknown user": "user=nobody",
    "a key": "api_key=key250",
    "a key with few rows": "api_key=key300",
    "a user and a rare model": "user=user1&model=gemini-4-rare",
    "a user and a rare status": "user=user1&status=cancelled",
    "a day": "created_at_from_0=2026-11-10&created_at_to_0=2026-11-10",
    "a day, model and status": "created_at_from_0=2026-11-10&created_at_to_0=2026-11-10"
    "&model=gpt-6-luna&status=failed",
    "search: a user": "q=user700",
    "search: a request id": "q=c4ca4238-a0b9-2382-0dcc-509a6f75849b",
    "words, frequent": "words=word17",
    "words, rare": "words=rutabaga",
    "words, none": "words=aubergine",
}

PERIODS = ("1h", "6h", "24h", "7d", "30d", "90d")
SPENDERS = {  # the first of each has most rows
    "user 1": "user=1",
    "user 700": "user=700",
    "API key 1": "api_key=1",
    "no key": "api_key=0",
}


class Statements:
    """What Django sends to PostgreSQL, with how long each took."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, float]] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001  # Django's signature
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            sql = sql.strip()
            if sql.startswith(("SELECT", "WITH")) and not sql.startswith("SELECT set_config"):
                self.sent.append((sql, params, time.perf_counter() - began))


def buffers(sql: str, params: Any) -> int:
    """Returns how many pages of 8 kB the statement touches when it runs again."""
    from django.db import OperationalError, connection

    with connection.cursor() as cursor:
        try:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
        except OperationalError:
            return -1
        plan = cursor.fetchone()[0]
    top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def measure(options: argparse.Namespace) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.utils.html import strip_tags

    client = Client()
    client.force_login(get_user_model().objects.get(pk=1))
    print(f"{'page':28} {'p50':>6} {'p95':>6} {'CPU':>5} {'kB':>5}   statements  slowest  buffers")
    for name, query in pages(client).items():
        if options.only not in name:
            continue
        url = query if query.startswith("/") else f"{LOGS}?{query}"
        client.get(url)
        runs, sent = [], []
        for _run in range(options.runs):
            noted = Statements()
            began, cpu = time.perf_counter(), time.thread_time()
            with connection.execute_wrapper(noted):
                response = client.get(url)
            runs.append((time.perf_counter() - began, time.thread_time() - cpu))
            sent.append(noted.sent)
        walls = sorted(wall for wall, _ in runs)
        touched = [buffers(sql, params) for sql, params, _ in sent[-1]]
        times = sorted(took for run in sent for *_, took in run)
        page = getattr(response, "context_data", {}).get("cl")
        came = strip_tags(page.searched) if page and page.is_early else ""
        print(
            f"{name:28} {statistics.median(walls) * 1e3:6.0f} {at(walls, 0.95) * 1e3:6.0f}"
            f" {statistics.median(cpu for _, cpu in runs) * 1e3:5.0f}"
            f" {len(response.content) / 1e3:5.0f}   {len(sent[-1]):10} {at(times, 0.95) * 1e3:7.1f}"
            f" {max(touched):8}  {came}"
        )
        if options.statements:
            for (sql, _params, took), count in zip(sent[-1], touched, strict=True):
                print(f"    {took * 1e3:6.1f} ms {count:6} buffers  {sql[: options.statements]}")


def at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def pages(client: Any) -> dict[str, str]:
    """Returns the addresses by what they are of; those of places in the list are asked for."""
    first = client.get(LOGS).context_data["cl"]
    return {
        **{name: query for name, query in LIST.items() if query != "p"},
        "the next page": first.older_url.removeprefix("?"),
        **{
            f"{name}, {period}": f"{LOGS}{name}/?period={period}"
            for name in ("dashboard", "errors")
            for period in PERIODS
        },
        **{
            f"spending, {what}, {period}": f"{LOGS}spending/?{query}&period={period}"
            for what, query in SPENDERS.items()
            for period in PERIODS
        },
        "a log": f"{LOGS}{first.result_list[0].pk}/change/",
        "its neighbour": f"{LOGS}{first.result_list[0].pk}/older/",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["fill", "measure", "start", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--body-days", type=int, default=7)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--only", default="", help="pages whose name has this in it")
    parser.add_argument("--search", default="scan", choices=["scan", "words"])
    parser.add_argument("--statements", type=int, default=0, help="show so much of each")
    options = parser.parse_args()
    server = Server(options.folder)
    if options.command == "stop":
        server.stop()
        return
    server.start()
    if options.command == "fill":
        asyncio.run(fill(server, options.rows, options.body_days))
    elif options.command == "measure":
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DEBUG": "0",
            "SECRET_KEY": "b" * 60,
            "SECURE_SSL_REDIRECT": "0",
            "STACCATO_API_KEY_PEPPER": "b" * 40,
            "ALLOWED_HOSTS": "*",
            "LOG_LEVEL": "ERROR",
            "STACCATO_SEARCH": options.search,
            "DATABASE_URL": server.url,
        }
        import django

        django.setup()
        from generation.runtime.collector import rare_collections

        with rare_collections():  # as in the service; a collection of all takes 100 ms
            measure(options)


if __name__ == "__main__":
    main()
