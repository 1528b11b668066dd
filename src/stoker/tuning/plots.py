"""Optuna's plots of a study, as PNG and as HTML."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from stoker.runs.files import write_atomic

__all__ = ["PLOTS", "draw"]

PLOTS = {
    "history": "plot_optimization_history",
    "importances": "plot_param_importances",
    "slice": "plot_slice",
    "parallel_coordinates": "plot_parallel_coordinate",
}


def draw(study: optuna.Study, folder: Path, notify: Callable[[str], None]) -> list[Path]:
    """Draw a study's plots; one that cannot be drawn is told, and the others are.

    Args:
        study: With a complete trial.
        folder: Where to; made if need be. Files of earlier plots are replaced.
        notify: Told what could not be drawn, and why.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    html = importlib.util.find_spec("plotly") is not None  # pip's --no-deps may have left it out
    if not html:
        notify("pictures are PNG alone: HTML needs the package plotly, which is not installed. Run: pip install plotly")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental features, and of layouts
        for name, function in PLOTS.items():
            try:
                _png(getattr(optuna.visualization.matplotlib, function)(study), folder / f"{name}.png")
                drawn.append(folder / f"{name}.png")
                if html:
                    figure: Any = getattr(optuna.visualization, function)(study)
                    write_atomic(folder / f"{name}.html", figure.to_html(include_plotlyjs="directory"))
                    _share_script(folder / "plotly.min.js")
                    drawn.append(folder / f"{name}.html")
            except Exception as error:  # no picture is worth a study
                notify(f"the picture {name} could not be drawn: {type(error).__name__}: {error}")
    return drawn


def _share_script(path: Path) -> None:
    """The script that all HTML plots of a folder use, 5 MB, once."""
    if not path.exists():
        from plotly.offline import get_plotlyjs

        write_atomic(path, get_plotlyjs())


def _png(axes: Any, path: Path) -> None:
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.ticker import NullFormatter

    each = np.ravel(axes)
    figure = each[0].figure
    for one in each:  # the numbers between powers of ten would stand over one another
        one.xaxis.set_minor_formatter(NullFormatter())
    try:
        # As wide as parallel coordinates need it, which have an axis a parameter.
        labels = len(each[0].get_xticklabels()) if path.stem == "parallel_coordinates" else 0
        figure.set_size_inches(max(10.0, 1.4 * labels, figure.get_size_inches()[0]), 6.0)
        write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight"))
    finally:
        plt.close(figure)
