"""What was measured, in words: the table of all sides, and the targets."""

from __future__ import annotations

import math
from statistics import median

from lineup import FLAT


def spread(values):
    """Median, least and most; None where nothing was measured."""
    values = [value for value in values if value is not None and not math.isnan(value)]
    return (median(values), min(values), max(values)) if values else None


def figure(values, form="{:.0f}"):
    found = spread(values)
    if found is None:
        return "–"
    middle, least, most = (form.format(value) for value in found)
    return middle if least == most else f"{middle} ({least}–{most})"


def of(found, **wanted):
    return [
        run for run in found["runs"] if all(run.get(key) == value for key, value in wanted.items())
    ]


def column(runs, key):
    return [run.get(key) for run in runs]


def table(found):
    head = ["side", "per s", "CPU µs", "× floor", "p50 ms", "p99 ms", "PG conn.", "checked out",
            "MB", "errors"]  # fmt: skip
    floor = spread(column(of(found, kind="speed", side="a"), "cpu_us"))
    rows = []
    for key, title in found["sides"].items():
        runs = of(found, kind="speed", side=key)
        cpu = spread(column(runs, "cpu_us"))
        rows.append([
            f"({key}) {title}", figure(column(runs, "per_s")), figure(column(runs, "cpu_us")),
            f"{cpu[0] / floor[0]:.2f}" if floor and cpu else "–",
            figure(column(runs, "p50_ms"), "{:.1f}"), figure(column(runs, "p99_ms"), "{:.1f}"),
            figure([max(column(runs, "connections"))]), figure(column(runs, "checked_out")),
            figure([run["memory_kb"] / 1024 for run in runs]),
            str(sum(run["errors"] + run["half_load_failed"] for run in runs)),
        ])  # fmt: skip
    return aligned([head, *rows])


def aligned(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def show(found):
    """All that was measured, in words."""
    parts = [table(found)] if of(found, kind="speed") else []
    if of(found, kind="stream"):
        parts.append(stream_table(found))
    if of(found, kind="dialects"):
        parts.append(dialect_table(found))
    return "\n\n".join([*parts, targets(found)])


def stream_table(found):
    head = ["side, 500 streams open", "events/s of 5,000", "event µs", "stream µs",
            "of 100 events µs", "first p50 ms", "first p99 ms", "errors"]  # fmt: skip
    rows = []
    for key in "ab":
        runs, firsts = of(found, kind="stream", side=key), of(found, kind="first", side=key)
        rows.append([
            f"({key}) {found['sides'][key]}",
            figure(column(runs, "events_per_s")),  # fewer: the machine was busy with other things
            figure(column(runs, "event_us"), "{:.1f}"),
            figure(column(runs, "stream_us")), figure([of_100_events(run) for run in runs]),
            figure(column(firsts, "p50_ms"), "{:.1f}"), figure(column(firsts, "p99_ms"), "{:.1f}"),
            str(sum(run["errors"] for run in [*runs, *firsts])),
        ])  # fmt: skip
    return aligned([head, *rows])


def dialect_table(found):
    """Each route against what it is compared with, round by round."""

    def ratios(route, other, key):
        pairs = zip(
            *(column(of(found, kind="dialects", route=name), key) for name in (route, other)),
            strict=True,
        )
        return [mine / its for mine, its in pairs]

    head = ["route", "whole answer µs", "× native (≤ 1.25)", "event µs", "× relay (≤ 2.0)"]
    relay = of(found, kind="dialects", route="relay")
    rows = [["bare relay", "–", "–", figure(column(relay, "event_us"), "{:.1f}"), "1.00"]]
    for route in dict.fromkeys(column(of(found, kind="dialects"), "route")):
        if route == "relay":
            continue
        runs = of(found, kind="dialects", route=route)
        rows.append([
            route, figure(column(runs, "whole_us")),
            figure(ratios(route, "native", "whole_us"), "{:.2f}"),
            figure(column(runs, "event_us"), "{:.1f}"),
            figure(ratios(route, "relay", "event_us"), "{:.2f}"),
        ])  # fmt: skip
    return aligned([head, *rows])


def of_100_events(run):
    return run["stream_us"] + 100 * run["event_us"]


def targets(found):
    """The targets, each with what was measured."""

    def middle(key, **wanted):
        value = spread(column(of(found, **wanted), key))
        return value[0] if value else float("nan")

    def speed(key, side):
        return middle(key, kind="speed", side=side)

    def ratio(key, side, other):
        return speed(key, side) / speed(key, other)

    def excess(key):
        return speed(key, "b") - speed(key, "a")

    def streamed(key):
        """Staccato against the relay, round by round: what slows the machine slows both."""
        pairs = zip(
            *(column(of(found, kind="stream", side=side), key) for side in "ba"), strict=True
        )
        return median([mine / bare for mine, bare in pairs] or [nothing])

    def first_excess(key):
        return middle(key, kind="first", side="b") - middle(key, kind="first", side="a")

    nothing = float("nan")
    for run in of(found, kind="stream"):
        run["long_us"] = of_100_events(run)
    flat = (of(found, kind="flat") or [{}])[0]
    crowd = (of(found, kind="crowd") or [{}])[0]
    small, large = (middle("cpu_us", kind="series", side="b", in_flight=n) for n in (100, FLAT))
    memory = [middle("memory_kb", kind="series", side="b", in_flight=n) for n in (100, FLAT)]
    rows = [
        ("CPU at 500 in flight ≤ 2.5 × floor (stretch 2.0)", ratio("cpu_us", "b", "a"), "×"),
        ("throughput ≥ 15 × (c) (stretch 25)", ratio("per_s", "b", "c"), "×"),
        ("throughput ≥ 7 × (e)", ratio("per_s", "b", "e"), "×"),
        ("throughput ≥ 4 × Portkey", ratio("per_s", "b", "p"), "×"),
        ("5,000 in flight, 5 s LLM: 0 errors", flat.get("errors", nothing), "errors"),
        ("… connections ≤ DB_POOL_SIZE (10)", flat.get("connections", nothing), "connections"),
        ("… peak checked out ≤ 4", flat.get("checked_out") or nothing, "checked out"),
        ("CPU, 5,000 in flight against 100 at equal rate ≤ 1.15 ×", large / small, "×"),
        ("memory per request in flight ≤ 30 KB", (memory[1] - memory[0]) / (FLAT - 100), "KB"),
        ("overhead p50 above the floor's ≤ 3 ms", excess("p50_ms"), "ms"),
        ("overhead p99 above the floor's ≤ 25 ms", excess("p99_ms"), "ms"),
        (f"two workers against one (≥ 1.8 × on 4 cores; here {found['machine']['cores']})",
         ratio("per_s", "w", "b"), "×"),
        ("streams: CPU per event ≤ 2.0 × relay", streamed("event_us"), "×"),
        ("streams: CPU per stream of 100 events ≤ 1.6 × relay", streamed("long_us"), "×"),
        ("streams: first word p50 above the relay's ≤ 5 ms", first_excess("p50_ms"), "ms"),
        ("streams: first word p99 above the relay's ≤ 30 ms", first_excess("p99_ms"), "ms"),
        (f"{crowd.get('in_flight', 0):,} streams open: 0 failed",
         crowd.get("errors", nothing), "failed"),
        ("… connections ≤ DB_POOL_SIZE (10)", crowd.get("connections", nothing), "connections"),
        (f"… checked out: 0 (at {crowd.get('looks_at_none')} of {crowd.get('looks')} looks)",
         crowd.get("checked_out", nothing), "at most"),
        ("… memory each ≤ 110 KB", crowd.get("kb_each", nothing), "KB"),
        (f"… events read a second ({crowd.get('sent_per_s', 0):,.0f} were sent)",
         crowd.get("read_per_s", nothing), "/s"),
        ("… gap between two reads of a stream, p99", crowd.get("gap_p99_s", nothing), "s"),
    ]  # fmt: skip
    commit = found["commit_ms"]
    lines = [
        f"  {what:62} {value:8.2f} {unit}" for what, value, unit in rows if not math.isnan(value)
    ]
    lines.append(
        f"  (one commit alone takes {commit['p50']:.1f} ms in the median, {commit['p99']:.1f} ms"
        " at the 99th percentile)"
    )
    return "\n".join(lines)
