"""The command `simulate`: a study replayed under each pruner, as a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miiii_search.analysis.figures.style import figure_bytes, figure_style
from miiii_search.cli.views.console import console, print_line
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.errors import MiiiiSearchError, reason
from miiii_search.files import write_file
from miiii_search.runs.output_files import output_errors
from miiii_search.simulation.curves import CurveSet
from miiii_search.simulation.figure import draw_pruners
from miiii_search.simulation.from_study import curves_from_study
from miiii_search.simulation.pruner_variants import PrunerVariant, pruner_variants
from miiii_search.simulation.scoring import Summary, ground_truth, score_replays, shuffled_studies, summarize
from miiii_search.storage.hints import hint
from miiii_search.study.study import Study


def read_study_curves(study: Study) -> CurveSet:
    """Return the learning curves of the ended trials of a study.

    Raises:
        MiiiiSearchError: No trial has ended, or no ended trial has a record.
    """
    with _progress_bar() as bar:
        task = bar.add_task("reading records", total=sum(study.counts().values()))
        curves, problems = curves_from_study(study, lambda _: bar.advance(task))
    for problem in problems:
        print_line(f"note: {problem}")
    if not curves.curves:
        raise MiiiiSearchError(
            f"study `{study.name}` has no ended trial with a record, so there is nothing to replay; "
            f"see {hint('status', '--study', study.name, database=study.database)}"
        )
    return curves


def replay_pruners(curves: CurveSet, lanes: int, n: int) -> list[tuple[PrunerVariant, Summary]]:
    """Replay a study under every pruner.

    Args:
        curves: The learning curves of the study.
        lanes: Number of trials that are trained at a time.
        n: Number of random orders of the queue to replay under each pruner.

    Returns:
        Each pruner with the summary of its `n` replays.
    """
    studies, pruners = shuffled_studies(curves, n), pruner_variants(curves.spec.pruning)
    truths = [ground_truth(curves.curves)] * len(studies)
    results = []
    with _progress_bar() as bar:
        task = bar.add_task("replaying", total=len(pruners))
        for pruner in pruners:
            bar.update(task, description=f"replaying {pruner.name}")
            results.append((pruner, summarize(score_replays(pruner, curves.spec, studies, lanes, truths))))
            bar.advance(task)
    return results


def show_replays(curves: CurveSet, results: Sequence[tuple[PrunerVariant, Summary]], out: Path, lanes: int) -> None:
    """Print the table of the pruners and write the figure.

    Args:
        curves: The learning curves of the study.
        results: The return value of `replay_pruners`.
        out: The figure's file: an SVG if its name ends with .svg, otherwise a PNG.
        lanes: Number of trials that were trained at a time.

    Raises:
        MiiiiSearchError: The figure cannot be drawn or written.
    """
    truth = ground_truth(curves.curves)
    what = "solved every task" if truth.solved else "ended nearly as well as the best (none solved every task)"
    print_line(
        f"{len(curves.curves)} trials of up to {curves.spec.experiment.epochs:,} epochs, {lanes} lanes, "
        f"{results[0][1].replays} orders of the queue; {len(truth.grokkers)} {what}"
    )
    if n_pruned := sum(curve.pruned for curve in curves.curves):
        print_line(
            f"note: {n_pruned} trials were pruned when they were trained, so their further curves are unknown: "
            "they count as trained to the end of their budget and not solved"
        )
    console.print(replays_table(results))
    try:
        with figure_style():
            picture = figure_bytes(draw_pruners({curves.name: results}), "svg" if out.suffix == ".svg" else "png")
    except Exception as error:
        raise MiiiiSearchError(f"the figure could not be drawn: {reason(error)}") from error
    with output_errors(out):
        write_file(out, picture)
    print_line(f"the figure is in {out}")


def replays_table(results: Sequence[tuple[PrunerVariant, Summary]]) -> FittedTable:
    """Return a table with one row per pruner: means, and for the epochs saved also the range of 90 % of the replays."""
    rows = []
    for variant, summary in results:
        mean, low, high = summary.mean, summary.low, summary.high
        saved = f"{1 - mean.epochs_share:.0%}"
        if high.epochs_share - low.epochs_share > 0.01:
            saved += f" ({1 - high.epochs_share:.0%} to {1 - low.epochs_share:.0%})"
        rows.append(
            (
                variant.name,
                saved,
                _number(mean.grokkers_lost, "{:.0%}"),
                _number(mean.top10_lost, "{:.1f}"),
                _number(mean.regret, "{:.3f}"),
                _number(mean.first_solved, "{:,.0f} epochs"),
                _number(mean.best_found, "{:,.0f}"),
            )
        )
    pruners, *numbers = zip(*rows, strict=True)
    names = ("epochs saved", "grokkers lost", "of the 10 fastest", "regret", "first solved after", "best after")
    drop_orders = (0, 0, 2, 3, 1, 4)
    return FittedTable(
        [
            Column("pruner", pruners, align_left=True, shrink_to=12, fold=True),
            *(
                Column(name, cells, drop_order=drop_order)
                for name, cells, drop_order in zip(names, numbers, drop_orders, strict=True)
            ),
        ]
    )


def _number(value: float, template: str) -> str:
    return "" if math.isnan(value) else template.format(value)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
