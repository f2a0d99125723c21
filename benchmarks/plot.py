"""The picture: CPU per generation, and connections, over requests in flight."""

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

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
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
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def middle(runs, size, key):
    values = [run[key] for run in runs if run["in_flight"] == size and run[key]]
    return median(values) if values else float("nan")
