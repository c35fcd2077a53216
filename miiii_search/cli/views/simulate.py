"""What each rule would have done with a study's trials: replays, a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miiii_search.analysis.figures.style import figure_bytes, figure_style
from miiii_search.cli.views.display import console
from miiii_search.cli.views.tables import Column, Fitted
from miiii_search.errors import MiiiiSearchError, reason
from miiii_search.files import write_file
from miiii_search.runs.output_files import writing
from miiii_search.simulation.curves import CurveSet
from miiii_search.simulation.figure import draw_pruners
from miiii_search.simulation.from_study import curves_from_study
from miiii_search.simulation.pruner_variants import PrunerVariant, pruner_variants
from miiii_search.simulation.scoring import Summary, ground_truth, score_replays, shuffled_studies, summarize
from miiii_search.study.hints import hint
from miiii_search.study.study import Study


def read_study_curves(study: Study) -> CurveSet:
    """The curves of a study's ended trials. Raises `MiiiiSearchError` if there are none."""
    with _bar() as bar:
        task = bar.add_task("reading records", total=sum(study.counts().values()))
        curves, problems = curves_from_study(study, lambda _: bar.advance(task))
    for problem in problems:
        console.print(f"note: {problem}", soft_wrap=True, highlight=False)
    if not curves.curves:
        raise MiiiiSearchError(
            f"study `{study.name}` has no ended trial with a record, so there is nothing to replay; "
            f"see {hint('status', '--study', study.name, database=study.database)}"
        )
    return curves


def compare_rules(curves: CurveSet, lanes: int, n: int) -> list[tuple[PrunerVariant, Summary]]:
    """Replays the curves under every rule in `n` orders of the queue."""
    studies, rules = shuffled_studies(curves, n), pruner_variants(curves.spec.pruning)
    truths = [ground_truth(curves.curves)] * len(studies)
    compared = []
    with _bar() as bar:
        task = bar.add_task("replaying", total=len(rules))
        for rule in rules:
            bar.update(task, description=f"replaying {rule.name}")
            compared.append((rule, summarize(score_replays(rule, curves.spec, studies, lanes, truths))))
            bar.advance(task)
    return compared


def show(curves: CurveSet, compared: Sequence[tuple[PrunerVariant, Summary]], out: Path, lanes: int) -> None:
    """Prints the table, and draws the picture into a file. Raises `MiiiiSearchError` if it cannot be written."""
    truth = ground_truth(curves.curves)
    what = "solved every task" if truth.solved else "ended nearly as well as the best (none solved every task)"
    console.print(
        f"{len(curves.curves)} trials of up to {curves.spec.experiment.epochs:,} epochs, {lanes} lanes, "
        f"{compared[0][1].replays} orders of the queue; {len(truth.grokkers)} {what}",
        soft_wrap=True,
        highlight=False,
    )
    if given_up := sum(curve.pruned for curve in curves.curves):
        console.print(
            f"note: {given_up} trials were pruned when they were trained, so nobody knows how they would have gone on: "
            "they count as trained to the end of their budget and not solved",
            soft_wrap=True,
            highlight=False,
        )
    console.print(table(compared))
    try:
        with figure_style():
            picture = figure_bytes(draw_pruners({curves.name: compared}), "svg" if out.suffix == ".svg" else "png")
    except Exception as error:
        raise MiiiiSearchError(f"the picture could not be drawn: {reason(error)}") from error
    writing(out, lambda: write_file(out, picture))
    console.print(f"the picture is in {out}", soft_wrap=True, highlight=False)


def table(compared: Sequence[tuple[PrunerVariant, Summary]]) -> Fitted:
    """A row a rule: means, and what holds nine of ten replays."""
    rows = []
    for contender, summary in compared:
        mean, low, high = summary.mean, summary.low, summary.high
        saved = f"{1 - mean.epochs_share:.0%}"
        if high.epochs_share - low.epochs_share > 0.01:
            saved += f" ({1 - high.epochs_share:.0%} to {1 - low.epochs_share:.0%})"
        rows.append(
            (
                contender.name,
                saved,
                _number(mean.grokkers_lost, "{:.0%}"),
                _number(mean.top10_lost, "{:.1f}"),
                _number(mean.regret, "{:.3f}"),
                _number(mean.first_solved, "{:,.0f} epochs"),
                _number(mean.best_found, "{:,.0f}"),
            )
        )
    rules, *figures = zip(*rows, strict=True)
    names = ("epochs saved", "grokkers lost", "of the 10 fastest", "regret", "first solved after", "best after")
    ranks = (0, 0, 2, 3, 1, 4)
    return Fitted(
        [
            Column("rule", rules, left=True, least=12, fold=True),
            *(Column(name, cells, rank=rank) for name, cells, rank in zip(names, figures, ranks, strict=True)),
        ]
    )


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
