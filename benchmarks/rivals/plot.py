"""The picture of `bulk.py`: seconds of each program on each workload, and the share of the messages that it found.

Figures on standard input; the file to draw is the argument.
"""

from __future__ import annotations

import json
import sys
import textwrap

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt

matplotlib.rcParams.update({"svg.hashsalt": "mlmessages", "svg.fonttype": "none", "font.size": 9})
OURS, OTHERS, SHORT = "#2456a6", "#b8bec8", "#c0392b"


def draw(told: dict, path: str) -> None:
    workloads = sorted(told["figures"])
    figure, axes = plt.subplots(1, len(workloads), figsize=(2.7 * len(workloads) + 1, 3.4), sharey=True)
    names = told["names"]
    order = [program for program in reversed(names) if program in told["figures"][workloads[0]]]
    for axis, workload in zip(axes, workloads, strict=True):
        figures = told["figures"][workload]
        for place, program in enumerate(order):
            counts = figures[program]
            share = counts["messages"] / counts["expected"]
            axis.barh(place, counts["seconds"], color=OURS if program == "ours" else OTHERS)
            words = f" {counts['seconds']:.2f} s" + ("" if share == 1 else f", only {share:.0%} found")
            axis.text(counts["seconds"], place, words, va="center", fontsize=8, color="black" if share == 1 else SHORT)
        most = max(figures[program]["seconds"] for program in order)
        axis.set_xlim(0, most * 2)
        if workload in told["ideal"]:
            axis.axvline(told["ideal"][workload], ymax=0.94, color="black", linewidth=0.8, linestyle=":")
            axis.text(told["ideal"][workload], len(order) - 0.45, "ideal", fontsize=8, ha="center")
        axis.set_title(textwrap.fill(f"{workload}: {told['titles'][workload]}", 37), fontsize=9)
        axis.set_xlabel("seconds")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(order)), [names[program] for program in order])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
