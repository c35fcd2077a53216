"""The learning curves of one run (Fig. 6, 7)."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from miiii_search.analysis.figures.style import default_style, escape_text
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment


def learning_curves(experiment: Experiment, record: Record, title: str, solved_epoch: int | None = None) -> bytes:
    """Accuracy and cross-entropy of every task against the epoch (logarithmic), as a PNG.

    Validation is drawn solid and training dotted, each task in the colour of its modulus; the black line is
    the mean over the scored tasks, which is what the study maximises.
    """
    with default_style():
        return _draw(experiment, record, title, solved_epoch)


def _draw(experiment: Experiment, record: Record, title: str, solved_epoch: int | None) -> bytes:
    # Not through pyplot: its state is global.
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    normalize = LogNorm(experiment.moduli[0], max(experiment.moduli[-1], experiment.moduli[0] + 1))
    colours = [colormaps["viridis"](normalize(q)) for q in experiment.moduli]
    for task, (q, colour) in enumerate(zip(experiment.moduli, colours, strict=True)):
        label = f"q = {q}" if len(experiment.moduli) <= 10 else None
        for axes, name in [(accuracy, "accuracy"), (loss, "loss")]:
            train, validation = (getattr(record, f"{split}_{name}")[:, task] for split in ("train", "validation"))
            axes.plot(record.epoch, train, color=colour, linestyle=":", linewidth=0.8)
            axes.plot(record.epoch, validation, color=colour, linewidth=1, label=label)
    scored = np.asarray(experiment.scored)
    if scored.sum() > 1:
        mean = record.validation_accuracy[:, scored].mean(axis=1)
        accuracy.plot(record.epoch, mean, color="black", linewidth=2, label="mean")
    for axes, name in [(accuracy, "accuracy"), (loss, "cross-entropy (nats)")]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.25)
        if solved_epoch is not None:
            axes.axvline(solved_epoch, color="tab:green", linewidth=1, label=f"solved at {solved_epoch:,}")
    accuracy.set_ylim(-0.02, 1.02)
    losses = np.stack([record.train_loss, record.validation_loss])
    if np.any(np.isfinite(losses) & (losses > 0)):  # not so where a run failed before its first evaluation
        loss.set_yscale("log")
    handles, _ = accuracy.get_legend_handles_labels()
    if handles:
        accuracy.legend(loc="best", fontsize="x-small", frameon=False)
    loss.plot([], [], color="grey", linewidth=1, label="validation")
    loss.plot([], [], color="grey", linestyle=":", linewidth=0.8, label="training")
    loss.legend(loc="best", fontsize="x-small", frameon=False)
    if len(experiment.moduli) > 10:
        scale = ScalarMappable(normalize, colormaps["viridis"])
        figure.colorbar(scale, ax=loss, label="modulus q")
    figure.suptitle(escape_text(title), fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
