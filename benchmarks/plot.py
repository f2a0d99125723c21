"""The picture: CPU per generation and connections over requests in flight, and a stream's CPU.

What was not measured has no place in it.
"""

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

    has_series, has_streams = (
        any(run["kind"] == kind for run in found["runs"]) for kind in ("series", "stream")
    )
    widths = [3, 3] * has_series + [2.2] * has_streams
    if not widths:
        return
    figure, axes = plt.subplots(
        1, len(widths), figsize=(1.6 * sum(widths), 4), width_ratios=widths, squeeze=False
    )
    if has_series:
        draw_series(found, *axes[0][:2])
    if has_streams:
        draw_streams(found, axes[0][-1])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def draw_series(found, left, right):
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
    right.legend(lines, labels, fontsize=8, loc="center right", framealpha=1, edgecolor="none")


def draw_streams(found, axes):
    """A bar for each side: the events of a stream of 100, and on top what comes once a stream."""
    for place, key in enumerate("ab"):
        runs = [run for run in found["runs"] if run["kind"] == "stream" and run["side"] == key]
        events = median(run["event_us"] for run in runs) / 10
        once = median(run["stream_us"] for run in runs) / 1000
        bars = ("100 events", 0, events, 1.0), ("once", events, once, 0.6)
        for name, bottom, height, alpha in bars:
            axes.bar(place, height, bottom=bottom, color=COLOURS[key], width=0.75, alpha=alpha)
            words = f"{name}: {height:.1f}"
            axes.text(place, bottom + height / 2, words, ha="center", va="center", fontsize=8,
                      color="white")  # fmt: skip
        axes.text(place, events + once, f"{events + once:.1f}", ha="center", va="bottom")
    axes.set_xticks([0, 1], labels=["bare relay", "Staccato"])
    axes.set_title("CPU ms per stream, 500 open")
    axes.margins(y=0.1)
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def middle(runs, size, key):
    values = [run[key] for run in runs if run["in_flight"] == size and run[key]]
    return median(values) if values else float("nan")
