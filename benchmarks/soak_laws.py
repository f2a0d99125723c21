"""What must be true after a soak, whatever happened in it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from soak_callers import Callers, Request, Worker
from soak_provider import Moody

from tests.support import http

# What the living worker may have more of at the end. Its pools keep connections up to their sizes.
# Memory is what is left after a collection and malloc_trim: in three runs of some 12,000 requests
# 138 to 140 MiB before, and 1, 3 or 8 more after. The process's size went from 166 to 185: the rest
# was garbage that waited for the collector, up to 20 MB, and what malloc keeps, 13 to 35 MiB.
MORE = {
    "held_mib": 16,
    "tasks": 2,
    "threads": 32,  # executors start threads when they have work
    "files": 2,
    "clients": 0,
    "providers": 2,
    "database": 10,
    "other_sockets": 2,
}
TIMED_OUT = "llm-timed-out"  # of a call that the service ended; its answer may be on its way
EXAMPLES = 3


@dataclass
class Law:
    name: str
    broken: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class State:
    """What the living worker holds when nobody asks anything of it."""

    held_mib: float
    tasks: int
    threads: int
    files: int  # descriptors that are no sockets
    clients: int  # connections
    providers: int
    database: int
    other_sockets: int

    @classmethod
    async def of(cls, worker: Worker, provider_port: int) -> State:
        service = worker.service
        pool = await service.pool()
        tasks = (await http.request(service.port, "GET", "/soak")).json()["tasks"]
        process = Path(f"/proc/{service.process.pid}")
        targets = [_link(entry) for entry in (process / "fd").iterdir()]
        inodes = {target[8:-1] for target in targets if target.startswith("socket:[")}
        ends = Counter(_ends(process, inodes, service.port, provider_port))
        return cls(
            held_mib=rss_mib(service.process.pid),  # /soak has freed what is not held
            tasks=tasks,
            threads=len(list((process / "task").iterdir())),
            files=sum(1 for target in targets if target and not target.startswith("socket:[")),
            clients=ends["clients"],
            providers=ends["providers"],
            database=pool["open"],
            other_sockets=len(inodes) - ends["clients"] - ends["providers"] - pool["open"],
        )


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""


def _ends(process: Path, inodes: set[str], own_port: int, provider_port: int) -> Iterator[str]:
    """Yields whom each TCP connection of the process leads to."""
    for line in (process / "net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        if rest[5] not in inodes or state == "0A":  # listening
            continue
        if int(remote.split(":")[1], 16) == provider_port:
            yield "providers"
        elif int(local.split(":")[1], 16) == own_port:
            yield "clients"


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    request: str
    status: str
    attempts: tuple[str, ...]  # how each call to the provider ended; '' for an answer


async def stored_rows(url: str) -> list[Row]:
    link = await asyncpg.connect(url)
    try:
        found = await link.fetch(
            "SELECT id, request_id, status, attempts FROM generation_generationlog"
        )
    finally:
        await link.close()
    return [
        Row(
            str(row["id"]),
            row["request_id"],
            row["status"],
            tuple(attempt["error"] for attempt in json.loads(row["attempts"])),
        )
        for row in found
    ]


def check(
    callers: Callers,
    provider: Moody,
    rows: list[Row],
    states: tuple[State, State],
    logs: dict[str, str],
) -> list[Law]:
    return [
        _answers_are_rows(callers, rows),
        _requests_leave_one_row(rows),
        _keys_have_one_answer(callers),
        _keys_are_paid_once(callers, provider, rows),
        Law("every key that met errors is answered in the end", callers.unanswered_keys),
        Law("callers meet documented answers only, each in time", callers.faults),
        Law(
            "no log has a traceback",
            [f"{name}: {_excerpt(log)}" for name, log in logs.items() if "Traceback" in log],
        ),
        _worker_is_as_before(*states),
    ]


def _answers_are_rows(callers: Callers, rows: list[Row]) -> Law:
    law = Law("every answered id is a row, once", note=f"{len(callers.answered)} answers")
    times = Counter(row.id for row in rows if row.status == "succeeded")
    for answer, request in callers.answered.items():
        if times[answer] != 1:
            law.broken.append(f"{answer}, answered to {request}, is {times[answer]} rows")
    return law


def _requests_leave_one_row(rows: list[Row]) -> Law:
    times = Counter(row.request for row in rows)
    return Law(
        "no request leaves two rows",
        [f"{request} left {count} rows" for request, count in times.items() if count > 1],
        f"{len(rows)} rows",
    )


def _keys_have_one_answer(callers: Callers) -> Law:
    law = Law("a key has one answer")
    repeated = 0
    for key, request in callers.keyed.items():
        ids = {answer for _, answer, _ in request.delivered}
        repeated += len(request.delivered) > 1
        if len(ids) > 1:
            law.broken.append(f"{key}: {_story(request)}")
    law.note = f"{len(callers.keyed)} keys, {repeated} answered again"
    return law


def _keys_are_paid_once(callers: Callers, provider: Moody, rows: list[Row]) -> Law:
    """The provider counts an answer that it has sent. If its worker was killed, or had stopped
    waiting just then, nobody has the answer, and it must be paid for again. That a worker stopped
    waiting, two must say: its row has a timeout, and it closed the connection to the provider.
    """
    law = Law("a key whose answer was delivered is paid for once")
    ends = {row.request: row.attempts for row in rows}
    after_kill = after_wait = 0
    for key, request in callers.keyed.items():
        paid = provider.paid.get(request.tag, [])
        if not request.delivered or len(paid) == 1:
            continue
        delivered = request.delivered[0][0]
        killed = sum(
            attempt.worker.killed is not None
            and attempt.began <= attempt.worker.killed <= delivered
            for attempt in request.attempts
        )
        seen = [ends.get(f"{request.tag}{n}", ()) for n in range(1, len(request.attempts) + 1)]
        timed_out = sum(attempts.count(TIMED_OUT) for attempts in seen)
        unread = min(timed_out, sum(call.hung_up for call in paid))
        late = any(call.asked > delivered for call in paid)
        if paid and not late and len(paid) - 1 <= killed + unread:
            after_kill += killed > 0
            after_wait += not killed
            continue
        calls = ", ".join(f"{call.answered - delivered:+.2f} s" for call in paid)
        law.broken.append(
            f"{key}: paid {calls} from its delivery; {_story(request)}; calls {seen[-8:]}"
        )
    law.note = f"{after_kill} paid again after a kill, {after_wait} after a timeout"
    return law


def _worker_is_as_before(before: State, after: State) -> Law:
    law = Law("the living worker ends as it began")
    for name, began in vars(before).items():
        ended = getattr(after, name)
        if ended > began + MORE[name]:
            law.broken.append(f"{name}: {began:.4g} before, {ended:.4g} after")
    return law


def _story(request: Request) -> str:
    first = request.attempts[0].began
    return (
        "; ".join(
            f"{attempt.began - first:.2f}–{attempt.ended - first:.2f} s {attempt.worker.name}"
            f" {attempt.outcome}"
            for attempt in request.attempts[-8:]
        )
        + f"; ids {[answer for _, answer, _ in request.delivered]}"
    )


def _excerpt(log: str) -> str:
    at = log.index("Traceback")
    return log[max(0, at - 200) : at + 1500].replace("\n", "\n      ")


def report(laws: list[Law], states: tuple[State, State], sizes_mib: list[float]) -> bool:
    """Prints the laws and the living worker. Returns whether all hold."""
    print(f"\n{'law':<58} {'broken':>6}")
    for law in laws:
        print(f"{law.name:<58} {len(law.broken):>6}   {law.note}")
        for example in law.broken[:EXAMPLES]:
            print(f"    e.g. {example}")
    print(f"\n{'the living worker, idle':<24} {'before':>8} {'after':>8}")
    for name, value in vars(states[0]).items():
        print(f"{name:<24} {value:>8.4g} {getattr(states[1], name):>8.4g}")
    parts = max(1, len(sizes_mib) // 10)
    peaks = [max(sizes_mib[at : at + parts]) for at in range(0, len(sizes_mib), parts)]
    print("rss_mib at its peak, in tenths of the time:", *(f"{peak:.0f}" for peak in peaks))
    return not any(law.broken for law in laws)
