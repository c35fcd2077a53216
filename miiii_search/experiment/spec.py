"""The specification of one training run: an experiment and the hyperparameters, both validated.

A run is a pure function of (`Experiment`, `Hyperparameters`). Its seed is a field of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from miiii_search.experiment._base import Spec
from miiii_search.experiment.hyperparameters import Hyperparameters
from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.subsets import canonical_subset, select
from miiii_search.experiment.task_registry import check_task, get_task

__all__ = ["Annealing", "Experiment", "Hyperparameters", "LinearDecay", "Spec"]


class LinearDecay(Spec):
    """A schedule that multiplies a hyperparameter by a factor that falls linearly from 1 to `end_factor`.

    The factor is 1 up to epoch `start`, and `end_factor` from epoch `end` on.
    """

    start: Annotated[int, Field(ge=0)] = 0
    """Epoch up to which the factor is 1."""
    end: Annotated[int, Field(gt=0)]
    """Epoch from which on the factor is `end_factor`. Must be after `start`."""
    end_factor: Annotated[float, Field(ge=0, lt=1)]
    """Factor at the end."""

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_name(cls, value: Any) -> Any:
        """Read `share`, the name of `end_factor` in stored studies and files of earlier versions."""
        if not isinstance(value, Mapping) or "share" not in value:
            return value
        if "end_factor" in value:
            raise ValueError("share is the earlier name of end_factor, and both are given: set end_factor only")
        return {"end_factor" if name == "share" else name: item for name, item in value.items()}

    @model_validator(mode="after")
    def _ends_after_start(self) -> LinearDecay:
        if self.end <= self.start:
            raise ValueError(f"end must be after start, but start = {self.start} and end = {self.end}")
        return self


class Annealing(Spec):
    """Schedules of hyperparameters that decrease in the course of a run. All others are constant.

    Annealed dropout: Rennie, Goel and Thomas (2014), *Annealed dropout training of deep networks*.
    """

    dropout: LinearDecay | None = None
    """Schedule of the dropout. Default: constant, as in the paper."""
    weight_decay: LinearDecay | None = None
    """Schedule of the weight decay. Default: constant, as in the paper."""
    learning_rate: LinearDecay | None = None
    """Schedule of the learning rate. Default: constant, as in the paper."""

    @property
    def decays(self) -> dict[str, LinearDecay]:
        """The schedules that are set, by the hyperparameter's name."""
        return {name: decay for name in type(self).model_fields if (decay := getattr(self, name)) is not None}

    @property
    def end(self) -> int:
        """The epoch from which on all hyperparameters are constant."""
        return max((decay.end for decay in self.decays.values()), default=0)


class Experiment(Spec):
    """Everything about a run except its hyperparameters: task, data, length and seeds.

    `data_seed` fixes the splits and the permutation of the task `basis`; all trials of a study share it. `seed` fixes
    the initial weights and the dropout masks.
    """

    p: Annotated[int, Field(le=1999)] = 113
    """Prime of at least 5. The samples are the p² pairs (x0, x1) of numbers below it. Default: the paper's."""
    task: str = "miiii"
    """Task: `miiii` (n mod q for every prime q < p), another task by name, or `module:object` for a task of your own.

    The others are `nanda` ((x0 + x1) mod p), `miiii+nanda` (both), `basis` (permuted samples), `masked` (without q = 2,
    3, 5 and 7) and `divisible` (whether q divides n). Known from other work are `subtraction`, `multiplication`,
    `division`, `sum-of-squares` and `cubic`.
    """
    moduli: Annotated[str | None, BeforeValidator(canonical_subset)] = None
    """Subset of the task's moduli that count in the loss and in the score: a list, or text such as `all but 7`.

    Runs with subsets share a compiled program. `all` is a subset, too; unset, all tasks count in a program of its own.
    """
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the p² samples to train on, rounded down. Default: the paper's 30 %."""
    validation_samples: Annotated[int, Field(gt=0)] | None = None
    """Size of the validation split. Default: the paper's 1,000, or less where p is small (see `n_validation`)."""
    epochs: Annotated[int, Field(gt=0, le=10**8)] = 65536
    """Number of epochs. Each is one step on all training samples. Default: the paper's 65,536."""
    evaluate_every: Annotated[int, Field(gt=0)] = 16
    """Maximum number of epochs between two evaluations; see `evaluation_interval`.

    More than one: evaluating every epoch takes a tenth of the time, and every 16th less than a fiftieth.
    """
    target_accuracy: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Validation accuracy at which a task is at the target. Default: 1, the paper's "perfect accuracy"."""
    solved_evaluations: Annotated[int, Field(gt=0)] = 3
    """Number of consecutive evaluations with every scored task at the target after which a run counts as solved.

    More than one, so that a single lucky evaluation does not count.
    """
    dropout_mask: Literal["sample", "batch"] = "sample"
    """Whether each sample has its own dropout mask, or all samples of a step share one, as in the public code.

    Default: one per sample, as dropout is defined.
    """
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Precision of matrix products. Sums and the loss are always float32. A CPU computes all three in float32.

    Default: `float32`, which is computed on every device.
    """
    initialisation: Literal["he", "public-code"] = "he"
    """Distribution of the initial weights; see `initial_weights`. Default: `he`, with the fan-in of each matrix.

    `public-code` is the distribution that the paper's public code draws from.
    """
    grokfast_alpha: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Memory α of the gradient filter's average: e becomes α e + (1−α) g (Eq. 13). Default: the paper's."""
    grokfast_start: Literal["first-gradient", "zero"] = "first-gradient"
    """Initial average of the gradient filter: e_0 = g_0, or 0 as in the public code.

    Default: the first gradient, as the authors of the filter define it (Lee et al.).
    """
    loss_reduction: Literal["sum", "mean"] = "sum"
    """Reduction of the tasks' weighted losses: their sum (Eq. 12), or their mean as in the public code.

    AdamW ignores a constant factor, except that its ε is larger relative to the gradients of a mean.
    """
    annealing: Annealing = Annealing()
    """Schedules of hyperparameters that decrease in the course of a run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights and of the dropout masks. A replicate adds its number. Any seed does."""
    data_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the splits and of the permutation of `basis`. All trials of a study share it, so that they compare."""

    @model_validator(mode="after")
    def _splits_are_possible(self) -> Experiment:
        if self.p < 5 or self.p not in primes_below(self.p + 1):
            primes = primes_below(max(2 * self.p, 12))
            nearest = min((q for q in primes if q >= 5), key=lambda q: abs(q - self.p))
            raise ValueError(f"p must be a prime of at least 5, but p = {self.p}; the nearest is {nearest}")
        check_task(self.task, self.p)
        assert any(self.scored)  # or `moduli` does not fit the task, and this raises ValueError
        if self.n_train < 1:
            raise ValueError(
                f"train_fraction = {self.train_fraction} of {self.p**2} samples leaves none to train on; raise it"
            )
        left = self.p**2 - self.n_train
        if left < 2:
            raise ValueError(
                f"train_fraction = {self.train_fraction} of {self.p**2} samples leaves {left}, but validation and "
                "test need one each; lower it"
            )
        if self.n_test < 1:
            raise ValueError(
                f"validation_samples must leave a sample to test, but {self.p**2} samples less {self.n_train} to "
                f"train leave {left} and validation_samples = {self.validation_samples}; "
                f"use {left - 1} at most, or lower train_fraction"
            )
        return self

    @property
    def n_train(self) -> int:
        """Number of training samples: `train_fraction` of p², rounded down. 3,830 for p = 113 and 0.3 (3.4)."""
        # round() first, since 0.29 * 100 is 28.999999999999996.
        return int(round(self.train_fraction * self.p**2, 6))

    @property
    def n_validation(self) -> int:
        """Number of validation samples: `validation_samples`, or 1,000 but at most half of the other samples."""
        if self.validation_samples is not None:
            return self.validation_samples
        return min(1000, (self.p**2 - self.n_train) // 2)

    @property
    def n_test(self) -> int:
        """Number of test samples: those in neither the training nor the validation split."""
        return self.p**2 - self.n_train - self.n_validation

    @property
    def accuracy_threshold(self) -> float:
        """Validation accuracy that a task must exceed to be at the target.

        It is a quarter of a sample below the smallest number of correct samples that reaches the target. So rounding
        cannot decide.
        """
        return (ceil(round(self.target_accuracy * self.n_validation, 6)) - 0.25) / self.n_validation

    @property
    def task_moduli(self) -> tuple[int, ...]:
        """Modulus of each task, by which it is known: every prime q < p, or only p for `nanda`."""
        return get_task(self.task).moduli(self.p)

    @property
    def classes(self) -> tuple[int, ...]:
        """Number of classes of each task: its modulus, unless the task says otherwise."""
        return get_task(self.task).classes(self.p)

    @property
    def balanced(self) -> bool:
        """Whether every class of a task counts the same; see `Task.balanced`."""
        return get_task(self.task).balanced

    @property
    def scored(self) -> tuple[bool, ...]:
        """Whether each task counts in the loss and the score: all do, except what `task` or `moduli` leaves out."""
        scored = get_task(self.task).scored(self.p)
        return scored if self.moduli is None else select(self.moduli, self.task_moduli, scored)

    @property
    def evaluation_interval(self) -> int:
        """Epochs between two evaluations: the largest divisor of `epochs` up to `evaluate_every`.

        As a divisor it makes the last epoch an evaluation.
        """
        return max(k for k in range(1, min(self.evaluate_every, self.epochs) + 1) if self.epochs % k == 0)
