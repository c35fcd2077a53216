"""The report on one run: its figures with their captions, and its page."""

from __future__ import annotations

from collections.abc import Sequence

from miiii_search.analysis.comparison import ComparisonTable, compare_runs
from miiii_search.analysis.figures import (
    activity,
    attention,
    circuits,
    curves,
    data,
    embeddings,
    neurons,
    progress_measures,
    training,
)
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import CONSECUTIVE_EVALUATIONS, LEARNED_ACCURACY
from miiii_search.analysis.report.page import Page
from miiii_search.analysis.report.rendering import FigureSpec, FigureTemplate
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.text import format_params

TRAINING, EMBEDDINGS, NEURONS, CIRCUITS, TASK = (
    "Training",
    "Embeddings",
    "Neurons and attention",
    "Circuits",
    "The task",
)

RUN_FIGURES: tuple[FigureTemplate[Findings], ...] = (
    FigureTemplate(
        "accuracy",
        TRAINING,
        "Accuracy of every task",
        "Fig. 6, 20, 23",
        "Upper panel: training accuracy. Lower panel: validation accuracy. Each row is a task; the epoch axis is "
        "logarithmic. Training accuracy is measured during the epoch's step, with dropout. The loss excludes the tasks "
        "with grey labels.",
        curves.accuracy,
    ),
    FigureTemplate(
        "loss",
        TRAINING,
        "Cross-entropy of every task",
        "Fig. 7",
        "Mean cross-entropy in nats, without the weights of Eq. 12. Values below 0.0001 are drawn as 0.0001. "
        "A falling validation loss announces generalisation before the accuracy rises.",
        curves.loss,
    ),
    FigureTemplate(
        "task-order",
        TRAINING,
        "The order in which tasks generalise",
        "section 4.2",
        f"A task is memorised at the first of {CONSECUTIVE_EVALUATIONS} consecutive evaluations with a training "
        f"accuracy of at least {LEARNED_ACCURACY}. It has generalised at the first of {CONSECUTIVE_EVALUATIONS} "
        "with such a validation accuracy.",
        training.task_order,
    ),
    FigureTemplate(
        "frequencies-through-training",
        TRAINING,
        "Frequencies of the neurons through training",
        "Fig. 17, 21, Table 3",
        "The magnitude of each neuron's two-dimensional Fourier transform over all inputs, averaged over the neurons. "
        "It is summed to one value per frequency of each digit and normalised to a sum of 1. "
        "A frequency is active if its value exceeds the mean by two standard deviations. Both are taken over all "
        "frequencies at all epochs shown.",
        activity.frequencies_through_training,
    ),
    FigureTemplate(
        "gradient-norms",
        TRAINING,
        "Gradient norms",
        "Fig. 18",
        "The L2 norm of the gradient of each weight matrix, before the gradient filter. The matrices are listed in the "
        "order in which the network uses them.",
        training.gradient_norms,
    ),
    FigureTemplate(
        "progress-measures",
        TRAINING,
        "Progress measures",
        "Nanda et al.",
        "The restricted loss is computed from only those components of the logits that have a key frequency of "
        "x0 + x1, on all samples. It falls as the general solution forms, before the loss on held-out samples falls. "
        "The excluded loss is computed without these components, on the training samples. It rises as the network "
        "loses what it memorised.",
        progress_measures.progress_measures,
    ),
    FigureTemplate(
        "positions",
        EMBEDDINGS,
        "Positional embeddings",
        "Fig. 8",
        "Left: the embeddings of both positions. Right: one plotted against the other, one dot per dimension. The two "
        "embeddings are similar if the task is commutative, and differ if the order of the digits matters.",
        embeddings.positions,
    ),
    FigureTemplate(
        "singular-values",
        EMBEDDINGS,
        "Singular values of the token embedding",
        "Fig. 9",
        "Singular values of the embedding of the p digits, which is not centred. The dashed lines mark where the sum "
        "of squares reaches 50 % and 90 % of the total.",
        embeddings.singular_values,
    ),
    FigureTemplate(
        "singular-vectors",
        EMBEDDINGS,
        "Leading singular vectors over the digits",
        "Fig. 10, 11",
        "The strongest singular vectors, which together hold half of the variance; at most eight are shown. Above each "
        "vector stand its dominant frequency k and the share of its variance at that frequency.",
        embeddings.singular_vectors,
    ),
    FigureTemplate(
        "fourier-embedding",
        EMBEDDINGS,
        "The token embedding in the Fourier basis",
        "Fig. 12 to 14",
        "Each row is a function of the Fourier basis (cos and sin of each frequency), each column a dimension of the "
        "embedding.",
        embeddings.fourier_embedding,
    ),
    FigureTemplate(
        "frequency-norms",
        EMBEDDINGS,
        "Frequencies of the token embedding",
        "Fig. 12 to 14",
        "The L2 norm of the embedding at each frequency. The noise threshold is the norm that any frequency exceeds in "
        "one of a hundred random orders of the digits.",
        embeddings.frequency_norms,
    ),
    FigureTemplate(
        "neuron-grids",
        NEURONS,
        "Neurons over both digits, and their frequencies",
        "Fig. 5, 15, 16",
        "The neurons with the largest variance. Upper row: activation after ReLU over the first values of both digits. "
        "Lower row: the share of the variance at each pair of frequencies, over all inputs.",
        neurons.neuron_grids,
    ),
    FigureTemplate(
        "neuron-frequencies",
        NEURONS,
        "Dominant frequencies of all neurons",
        "section 4.4",
        "Left: each neuron's dominant frequency of either digit; the area of a dot is the number of neurons. Right: "
        "the share of each neuron's variance at its dominant frequencies, alone and combined.",
        neurons.neuron_frequencies,
    ),
    FigureTemplate(
        "attention",
        NEURONS,
        "Attention from ŷ to each digit",
        "Fig. 19",
        "Attention of each head over all inputs. The remainder to 1 is attention from ŷ to itself.",
        attention.attention_grids,
    ),
    FigureTemplate(
        "circuits",
        CIRCUITS,
        "Which circuit each task needs",
        "section 6, future work",
        "Change of each task's accuracy on held-out samples when one part of the final network is ablated. "
        "A part is a frequency of the embedding, the neurons with a common dominant frequency of x0, or an attention "
        "head. Ablation replaces it by its mean over all inputs.",
        circuits.circuits_by_task,
    ),
    FigureTemplate(
        "circuits-through-training",
        CIRCUITS,
        "Circuits through training",
        "section 5 and 6",
        "The same ablations at every snapshot, averaged over the tasks. A circle marks a part that the network needed "
        "at some time but not at the end. It stands at the epoch at which the loss of accuracy was largest.",
        circuits.circuits_through_training,
    ),
    FigureTemplate(
        "label-grids",
        TASK,
        "Labels over the digits",
        "Fig. 4",
        "The class of each pair of digits in some of the tasks, for the first values of both digits.",
        lambda findings: data.label_grids(findings.run.experiment),
    ),
    FigureTemplate(
        "input-grid",
        TASK,
        "The inputs",
        "Fig. 3",
        "The two digits of every sample, and the number n = x0 + x1·p that they represent.",
        lambda findings: data.input_grid(findings.run.experiment.p),
    ),
    FigureTemplate(
        "number-spirals",
        TASK,
        "Number spirals",
        "Fig. 2",
        "Natural numbers below p² in polar coordinates (radius n, angle n mod 2π).",
        lambda findings: data.number_spirals(findings.run.experiment.p),
    ),
    FigureTemplate(
        "dft-matrix",
        TASK,
        "The Fourier transform as a matrix",
        "Fig. 22",
        "Real and imaginary part of the discrete Fourier transform over the digits.",
        lambda findings: data.dft_matrix(findings.run.experiment.p),
    ),
)

RUN_FIGURE_NAMES = [figure.name for figure in RUN_FIGURES]


def run_figures(findings: Findings) -> list[FigureSpec]:
    """Return the figures of one run."""
    return [figure.bind(findings) for figure in RUN_FIGURES]


def run_page(findings: Findings, problems: Sequence[str], made_by: str) -> Page:
    """Return the page of one run.

    Args:
        findings: The analysis of the run.
        problems: Messages about files or figures, which precede the list of what is missing.
        made_by: The footer.
    """
    run = findings.run
    experiment, hyperparameters, metrics = run.experiment, run.hyperparameters, run.metrics
    size = f"d = {hyperparameters.d_model}, {hyperparameters.n_heads} heads"
    summary = f"Task {experiment.task} at p = {experiment.p}, {size}, trained for {run.last_epoch:,} epochs"
    if metrics is not None:
        solved = metrics.epochs_to_solve
        ending = f"solved at epoch {solved:,}" if solved else "not solved"
        summary += f": {ending}, mean validation accuracy {format_accuracy(metrics.validation_accuracy_mean)}"
    settings = {**hyperparameters.model_dump(), "train_fraction": experiment.train_fraction, "seed": experiment.seed}
    return Page(
        title=f"What {run.name} learned",
        summary=f"{summary}.",
        table=[("configuration", format_params(settings)), *_quantities(compare_runs([findings]))],
        remarks=[*problems, *findings.missing],
        made_by=made_by,
    )


def _quantities(table: ComparisonTable) -> list[tuple[str, str]]:
    """Return the names and values of all quantities known of the table's only run."""
    quantities = []
    for row in table.rows:
        [cell] = row.cells
        if cell.text:
            unit = f" {row.unit}" if row.unit and cell.values else ""  # "not reached" has no unit
            quantities.append((row.name, f"{cell.text}{unit}{f' ({row.source})' if row.source else ''}"))
    return quantities
