"""The picture: microseconds per step by side, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from benchmarks.jobs import JOBS
from benchmarks.sides import SIDES
from benchmarks.summary import Figures, Key

OURS, OTHERS, INK, PALE = "#c2410c", "#a8a29e", "#1c1917", "#57534e"


def draw(tables: Mapping[Key, Sequence[Figures]], file: Path) -> None:
    """Draw a panel for each table, a bar for each side that has steady steps, the fastest above."""
    figure = Figure(figsize=(11, 4.6), dpi=160, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.04))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(1, len(tables)), squeeze=False)[0]
    for panel, (key, rows) in zip(panels, tables.items(), strict=False):
        known = sorted(((row.step_us, row.side) for row in rows if row.step_us is not None), reverse=True)
        names = [SIDES[side].label for _, side in known]
        steps = [step for step, _ in known]
        colours = [OURS if side.startswith("stoker") else OTHERS for _, side in known]
        panel.barh(names, steps, color=colours, height=0.72)
        for place, step in enumerate(steps):
            text = f"{step:,.0f}" if step >= 20 else f"{step:.1f}"
            panel.annotate(text, (step, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
        panel.set_xscale("log")
        if steps:
            panel.set_xlim(10 ** math.floor(math.log10(min(steps) / 1.5)), max(steps) * 2.2)
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.set_title(JOBS[key.job].title, loc="left", color=INK, fontsize=11, fontweight="bold")
        threads = f"{key.threads} thread{'s' * (key.threads > 1)}"
        panel.set_xlabel(f"µs per step, batch {key.batch_size}, {threads}, logarithmic", color=PALE, fontsize=9)
        panel.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
        panel.tick_params(axis="x", colors=PALE, labelsize=8)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(OTHERS)
    figure.savefig(file)
