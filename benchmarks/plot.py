"""The picture: CPU per generation and connections over requests in flight, and a stream's CPU."""

from __future__ import annotations

from statistics import median

COLOURS = {
    "a": "#78716c",
    "b": "#0d9488",
    "c": "#d97706",
    "d": "#dc2626",
    "e": "#2563eb",
    "p": "#9333ea",
}


def draw(found, path):
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "staccato"  # the same figures give the same file
    import matplotlib.pyplot as plt

    figure, (left, right, low) = plt.subplots(1, 3, figsize=(13, 4), width_ratios=(3, 3, 2))
    for key, title in found["sides"].items():
        runs = [run for run in found["runs"] if run["kind"] == "series" and run["side"] == key]
        sizes = sorted({run["in_flight"] for run in runs})
        if not sizes:
            continue
        style = {"label": f"({key}) {title}", "color": COLOURS.get(key), "marker": "o", "lw": 1.5}
        left.plot(sizes, [middle(runs, size, "cpu_us") for size in sizes], **style)
        if key not in "ap":  # these have no database
            right.plot(sizes, [middle(runs, size, "connections") for size in sizes], **style)
    left.set_title(f"CPU µs per generation, {found['rate']} requests/s offered")
    right.set_title("PostgreSQL connections")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(
            [100, 500, 1000, 2000, 5000], labels=["100", "500", "1,000", "2,000", "5,000"]
        )
        axes.minorticks_off()
        axes.set_xlabel("requests in flight")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    lines, labels = left.get_legend_handles_labels()
    right.legend(lines, labels, fontsize=8, frameon=False, loc="center right")
    draw_streams(found, low)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def draw_streams(found, axes):
    for place, key in enumerate("ab"):
        runs = [run for run in found["runs"] if run["kind"] == "stream" and run["side"] == key]
        if not runs:
            axes.set_axis_off()
            return
        stream = median(run["stream_us"] for run in runs) / 1000
        events = median(run["event_us"] for run in runs) / 10
        axes.bar(place, events, color=COLOURS[key], width=0.6)
        axes.bar(place, stream, bottom=events, color=COLOURS[key], width=0.6, alpha=0.5)
        axes.text(place, events / 2, "100 events", ha="center", va="center", fontsize=8)
        axes.text(place, events + stream / 2, "the rest", ha="center", va="center", fontsize=8)
    axes.set_xticks([0, 1], labels=["bare relay", "Staccato"])
    axes.set_title("CPU ms per stream, 500 open")
    axes.grid(alpha=0.3, axis="y")
    axes.spines[["top", "right"]].set_visible(False)


def middle(runs, size, key):
    values = [run[key] for run in runs if run["in_flight"] == size and run[key]]
    return median(values) if values else float("nan")
