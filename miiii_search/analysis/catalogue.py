"""Every figure with its caption, and the words around them: of a run, of several runs, of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure

from miiii_search.analysis.comparison import ComparisonTable, compare_runs
from miiii_search.analysis.figures import (
    activity,
    attention,
    circuits,
    comparison_training,
    comparison_weights,
    curves,
    data,
    embeddings,
    neurons,
    progress_measures,
    study_importance,
    study_seeds,
)
from miiii_search.analysis.figures.reference import compare_with_reference
from miiii_search.analysis.figures.style import escape_text
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import LEARNED_ACCURACY
from miiii_search.analysis.reference import ReferenceCurves
from miiii_search.analysis.report import FigureSpec, Page
from miiii_search.analysis.study_summary import StudySummary
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.text import format_params

TRAINING, EMBEDDINGS, NEURONS, CIRCUITS, TASK = (
    "Training",
    "Embeddings",
    "Neurons and attention",
    "Circuits",
    "The task",
)

Draw = Callable[[Findings], Figure | None]

# Section, file, title, the paper's figures, caption, function.
RUN_FIGURES: tuple[tuple[str, str, str, str, str, Draw], ...] = (
    (
        TRAINING,
        "accuracy",
        "Accuracy of every task",
        "Fig. 6, 20, 23",
        "Training above, validation below; a row a task, epochs logarithmic. Training accuracy is that of the epoch's "
        "step, with dropout. Grey tasks are left out of the loss.",
        curves.accuracy,
    ),
    (
        TRAINING,
        "loss",
        "Cross-entropy of every task",
        "Fig. 7",
        "In nats, without the weights of Eq. 12; what is below 0.0001 is drawn as that. A validation loss that turns "
        "down announces generalisation before the accuracy moves.",
        curves.loss,
    ),
    (
        TRAINING,
        "task-order",
        "The order in which tasks generalise",
        "section 4.2",
        f"The first of three evaluations in a row at an accuracy of {LEARNED_ACCURACY}: on the training samples "
        "(memorised) and on the validation samples (generalised).",
        curves.task_order,
    ),
    (
        TRAINING,
        "frequencies-through-training",
        "Frequencies of the neurons through training",
        "Fig. 17, 21, Table 3",
        "The magnitude of each neuron's 2-d Fourier transform over all inputs, mean over the neurons, summed to one "
        "value a frequency of each digit and normalised. Active is what exceeds the mean by two standard deviations, "
        "both over all frequencies of all epochs shown.",
        activity.frequencies_through_training,
    ),
    (
        TRAINING,
        "gradient-norms",
        "Gradient norms",
        "Fig. 18",
        "The L2 norm of each matrix's gradient, before the gradient filter, in the order in which the network uses "
        "the matrices.",
        curves.gradient_norms,
    ),
    (
        TRAINING,
        "progress-measures",
        "Progress measures",
        "Nanda et al.",
        "Restricted loss keeps of the logits the key frequencies of x0 + x1 alone, on all samples: it falls as the "
        "general solution grows, before the loss on held-out samples does. Excluded loss takes them away, on the "
        "training samples: it rises as what was memorised is given up.",
        progress_measures.progress_measures,
    ),
    (
        EMBEDDINGS,
        "positions",
        "Positional embeddings",
        "Fig. 8",
        "The embeddings of both positions, and one against the other. Where the task is commutative they are alike; "
        "where the order of the digits matters they are not.",
        embeddings.positions,
    ),
    (
        EMBEDDINGS,
        "singular-values",
        "Singular values of the token embedding",
        "Fig. 9",
        "Of the embedding of the p digits, as it is. The marks stand where the squares sum to 50 % and to 90 %.",
        embeddings.singular_values,
    ),
    (
        EMBEDDINGS,
        "singular-vectors",
        "Leading singular vectors over the digits",
        "Fig. 10, 11",
        "Those that hold the first half of the variance, eight at most, strongest first.",
        embeddings.singular_vectors,
    ),
    (
        EMBEDDINGS,
        "fourier-embedding",
        "The token embedding in the Fourier basis",
        "Fig. 12 to 14",
        "A row a function of the basis (cos and sin of each frequency), a column a dimension of the embedding.",
        embeddings.fourier_embedding,
    ),
    (
        EMBEDDINGS,
        "frequency-norms",
        "Frequencies of the token embedding",
        "Fig. 12 to 14",
        "The norm of the embedding at each frequency. A frequency is active if it carries more than in all but "
        "one of a hundred random orders of the digits.",
        embeddings.frequency_norms,
    ),
    (
        NEURONS,
        "neuron-grids",
        "Neurons over both digits, and their frequencies",
        "Fig. 5, 15, 16",
        "The neurons that vary most, right after ReLU, over the first digits of the grid; below each its power at the "
        "frequencies of both digits over the whole grid.",
        neurons.neuron_grids,
    ),
    (
        NEURONS,
        "neuron-frequencies",
        "Dominant frequencies of all neurons",
        "section 4.4",
        "Of every neuron the dominant frequency of each digit, and the share of its variance there: of each digit "
        "alone and of both together.",
        neurons.neuron_frequencies,
    ),
    (
        NEURONS,
        "attention",
        "Attention from ŷ to each digit",
        "Fig. 19",
        "Of each head over all inputs. What is left of 1 goes to ŷ itself.",
        attention.attention_grids,
    ),
    (
        CIRCUITS,
        "circuits",
        "Which circuit which task needs",
        "section 6, future work",
        "The change of each task's accuracy on samples that were not trained on, when one part of the final network is "
        "replaced by its mean over all inputs: a frequency of the embedding, the neurons of a dominant frequency of "
        "x0, a head.",
        circuits.circuits_by_task,
    ),
    (
        CIRCUITS,
        "circuits-through-training",
        "Circuits through training",
        "section 5 and 6",
        "The same at every snapshot, as the mean over the tasks. A circle marks what was needed once and is not needed "
        "at the end, at the epoch at which it was needed most.",
        circuits.circuits_through_training,
    ),
    (
        TASK,
        "label-grids",
        "Labels over the digits",
        "Fig. 4",
        "The class of a few tasks over the first of both digits.",
        lambda findings: data.label_grids(findings.run.experiment),
    ),
    (
        TASK,
        "input-grid",
        "The inputs",
        "Fig. 3",
        "Both digits of every sample, and the number that they make.",
        lambda findings: data.input_grid(findings.run.experiment.p),
    ),
    (
        TASK,
        "number-spirals",
        "Number spirals",
        "Fig. 2",
        "Natural numbers below p² in polar coordinates (n, n mod 2π).",
        lambda findings: data.number_spirals(findings.run.experiment.p),
    ),
    (
        TASK,
        "dft-matrix",
        "The Fourier transform as a matrix",
        "Fig. 22",
        "Real and imaginary part.",
        lambda findings: data.dft_matrix(findings.run.experiment.p),
    ),
)


def pictures(findings: Findings) -> list[FigureSpec]:
    """The figures of one run."""
    return [
        FigureSpec(name, section, title, caption, source, partial(function, findings))
        for section, name, title, source, caption, function in RUN_FIGURES
    ]


def run_page(findings: Findings, problems: Sequence[str], made_by: str) -> Page:
    """The page of one run: its end in a sentence, the quantities that runs are compared by, what is missing."""
    run = findings.run
    experiment, hyperparameters, metrics = run.experiment, run.hyperparameters, run.metrics
    size = f"d = {hyperparameters.d_model}, {hyperparameters.n_heads} heads"
    summary = f"Task {experiment.task} at p = {experiment.p}, {size}, trained for {run.last_epoch:,} epochs"
    if metrics is not None:
        solved = metrics.epochs_to_solve
        ending = f"solved at epoch {solved:,}" if solved else "not solved"
        summary += f": {ending}, validation accuracy {format_accuracy(metrics.validation_accuracy_mean)} in the mean"
    settings = {**hyperparameters.model_dump(), "train_fraction": experiment.train_fraction, "seed": experiment.seed}
    chosen = format_params(settings)
    return Page(
        f"What {run.name} learned",
        f"{summary}.",
        [("configuration", chosen), *_quantities(compare_runs([findings]))],
        [*problems, *findings.missing],
        made_by,
    )


def _quantities(table: ComparisonTable) -> list[tuple[str, str]]:
    """Name, value and unit of what is known of the first run."""
    lines = []
    for row in table.rows:
        [cell, *_] = row.cells
        if cell.text:
            unit = f" {row.unit}" if row.unit and cell.values else ""  # what was not reached is in no unit
            lines.append((row.name, f"{cell.text}{unit}{f' ({row.reference})' if row.reference else ''}"))
    return lines


DrawSeveral = Callable[[Sequence[Findings]], Figure | None]

COMPARISON_FIGURES: tuple[tuple[str, str, str, str, DrawSeveral], ...] = (
    (
        "compare-accuracy",
        "Accuracy through training",
        "Fig. 6, 20",
        "Validation accuracy of every task, and the mean over the scored ones.",
        comparison_training.compare_accuracy,
    ),
    (
        "compare-positions",
        "Positional embeddings",
        "Fig. 8",
        "The second position's embedding against the first's, a dot a dimension, with Pearson's correlation.",
        comparison_weights.compare_positions,
    ),
    (
        "compare-singular-values",
        "Singular values of the token embedding",
        "Fig. 9",
        "Marks stand where the squares sum to 50 % and to 90 %.",
        comparison_weights.compare_singular_values,
    ),
    (
        "compare-embeddings",
        "Frequencies of the token embedding",
        "Fig. 12 to 14",
        "The share of the embedding's energy at each frequency, and what it exceeds where a frequency is active.",
        comparison_weights.compare_embeddings,
    ),
    (
        "compare-neurons",
        "How well two frequencies explain the neurons",
        "Fig. 15, 16",
        "Of all neurons, by the share of the variance at their dominant frequencies.",
        comparison_weights.compare_neurons,
    ),
    (
        "compare-activity",
        "Frequencies of the neurons through training",
        "Fig. 17, 21, Table 3",
        "The mean activation of the frequencies of each digit, and how many are active.",
        comparison_training.compare_activity,
    ),
    (
        "compare-attention",
        "Attention from ŷ to x0",
        "Fig. 19",
        "A row a run, a column a head, over all inputs.",
        comparison_weights.compare_attention,
    ),
)


REFERENCE_FIGURE = "compare-reference"


def comparison_figures(findings: Sequence[Findings], reference: ReferenceCurves | None = None) -> list[FigureSpec]:
    """Return the figures that put several runs side by side, and beside a reference if there is one."""
    findings = [replace(one, run=replace(one.run, name=escape_text(one.run.name))) for one in findings]
    pictures = [
        FigureSpec(name, "Findings", title, caption, source, partial(function, findings))
        for name, title, source, caption, function in COMPARISON_FIGURES
    ]
    if reference is not None:
        shown = replace(reference, name=escape_text(reference.name))
        caption = (
            "Above: mean accuracies, of the reference in grey. Below: the epoch from which each task's validation "
            "accuracy stays at 0.9, of the reference as dots, of the runs as crosses."
        )
        draw = partial(compare_with_reference, findings, shown)
        pictures.insert(0, FigureSpec(REFERENCE_FIGURE, "Findings", "Beside the reference", caption, "Fig. 6", draw))
    return pictures


def comparison_page(table: ComparisonTable, problems: Sequence[str], made_by: str) -> Page:
    """The page that puts several runs side by side."""
    return Page("Side by side", f"{', '.join(table.names)}.", [], problems, made_by, [table.header, *table.lines()])


STUDY_FIGURES: dict[str, tuple[str, str]] = {
    "study-curves": (
        "Learning curves of all trials",
        "Mean validation accuracy at the rungs, in panels by the two hyperparameters that decide most.",
    ),
    "study-configurations": ("A panel a configuration", "The same curves, each configuration by itself."),
    "study-solved": (
        "Where in its space the study was solved, and how fast",
        "Epochs to solve; grey cells were not solved. Where several trials share a cell it is their median.",
    ),
    "study-seeds": (
        "How much the seeds of a configuration differ",
        "Epochs to solve of every seed that has ended, the best median first; pruned and failed ones count as not "
        f"solved. Beside a row: solved of all. The best {study_seeds.MOST_ROWS} configurations with several seeds.",
    ),
    "study-importance": (
        "Which hyperparameter decides",
        "The share of the objective's variance that each one explains, and each pair beyond what both explain alone.",
    ),
    "study-marginals": (
        "Trials solved at each value",
        "Of the trials that ended; the numbers above the bars are solved and ended ones.",
    ),
}


def study_figures(summary: StudySummary) -> list[FigureSpec]:
    """The figures of a whole study."""
    return [
        FigureSpec(name, "The study", *STUDY_FIGURES[name], "", partial(draw, summary))
        for name, draw in study_importance.FIGURES.items()
    ]


def study_page(summary: StudySummary, made_by: str) -> Page:
    """The page of a whole study: counts, and what decides."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.counts.items() if count)
    importance = summary.importance
    rows = [
        (" × ".join(t.names), f"{100 * t.share:.1f} % of the variance") for t in importance.terms if t.is_significant
    ]
    rows += [
        ("best configuration over its seeds", spread.in_words) for spread in summary.seed_spreads[:1] if spread.median
    ]
    return Page(
        f"Study {summary.study}",
        f"{len(summary.trials)} trials of up to {summary.epochs:,} epochs: {counts or 'none has begun'}; "
        f"{importance.in_words}.",
        rows,
        [note for note in importance.notes if note != importance.in_words],
        made_by,
    )
