"""What one training run is: an experiment, the paper's six hyperparameters, and their validation.

One run is a pure function of (`Experiment`, `Hyperparameters`): its seed is a field of the experiment.
"""

from __future__ import annotations

from math import ceil, isqrt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["miiii", "nanda", "basis", "masked"]

MASKED_MODULI = (2, 3, 5, 7)
"""Left out of the loss and of the score by the task `masked` (appendix A)."""


class Spec(BaseModel):
    """Base of all specs: frozen, hashable, no conversion between types, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def primes_below(limit: int) -> tuple[int, ...]:
    """The primes smaller than `limit`, ascending."""
    return tuple(n for n in range(2, limit) if all(n % k for k in range(2, isqrt(n) + 1)))


class Hyperparameters(Spec):
    """A point of Table 1; the defaults are Table 2, the paper's best."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    grokfast_lambda: Annotated[float, Field(ge=0)] = 0.5
    weight_decay: Annotated[float, Field(ge=0)] = 1 / 3
    d_model: Annotated[int, Field(gt=0, le=65536)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    n_heads: Annotated[int, Field(gt=0)] = 4

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Hyperparameters:
        if self.d_model % self.n_heads:
            nearest = max(h for h in range(1, self.n_heads) if self.d_model % h == 0)
            raise ValueError(
                f"d_model must be divisible by n_heads, but d_model = {self.d_model} and "
                f"n_heads = {self.n_heads}; n_heads = {nearest} would do"
            )
        return self


class LinearDecay(Spec):
    """From what it is at `start`, a hyperparameter falls linearly to a `share` of it at epoch `end`, and stays so."""

    start: Annotated[int, Field(ge=0)] = 0
    end: Annotated[int, Field(gt=0)]
    share: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _takes_time(self) -> LinearDecay:
        if self.end <= self.start:
            raise ValueError(f"end must be after start, but start = {self.start} and end = {self.end}")
        return self


class Annealing(Spec):
    """What falls in the course of a run; the others stay as they are.

    Annealed dropout: Rennie, Goel and Thomas (2014), *Annealed dropout training of deep networks*.
    """

    dropout: LinearDecay | None = None
    weight_decay: LinearDecay | None = None
    learning_rate: LinearDecay | None = None

    @property
    def decays(self) -> dict[str, LinearDecay]:
        """By the hyperparameter's name."""
        return {name: fall for name in type(self).model_fields if (fall := getattr(self, name)) is not None}

    @property
    def end(self) -> int:
        """The epoch from which on all stays as it is."""
        return max((fall.end for fall in self.decays.values()), default=0)


class Experiment(Spec):
    """Everything about a run but its hyperparameters: task, data, length, seeds.

    `data_seed` fixes the splits and the permutation of the task `basis`; a study keeps it for all its
    trials. `seed` fixes the initial weights and the dropout masks.
    """

    p: Annotated[int, Field(le=1999)] = 113
    task: Task = "miiii"
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    validation_samples: Annotated[int, Field(gt=0)] | None = None
    """Unset: the paper's 1,000, or half of what training leaves where p is small (see `n_validation`)."""
    epochs: Annotated[int, Field(gt=0, le=10**8)] = 65536
    evaluate_every: Annotated[int, Field(gt=0)] = 16
    """At most this many epochs apart; see `evaluation_interval`."""
    target_accuracy: Annotated[float, Field(gt=0, le=1)] = 1.0
    solved_evaluations: Annotated[int, Field(gt=0)] = 3
    """Solved: every scored task at the target for so many evaluations in a row, so that luck does not count."""
    dropout_mask: Literal["sample", "batch"] = "sample"
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of matrix products; sums and the loss are float32 always. A CPU computes all three in float32."""
    initialisation: Literal["he", "public-code"] = "he"
    """How the weights are drawn; see `initial_weights`."""
    grokfast_alpha: Annotated[float, Field(ge=0, lt=1)] = 0.98
    grokfast_start: Literal["first-gradient", "zero"] = "first-gradient"
    """The gradient filter's average before the first step: e_0 = g_0 (Lee et al.), or 0 as in the public code."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """How the tasks' weighted losses become one: their sum (Eq. 12), or their mean as in the public code.

    AdamW ignores a constant factor except for its ε, which a mean makes larger relative to the gradients.
    """
    annealing: Annealing = Annealing()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _is_possible(self) -> Experiment:
        if self.p < 5 or self.p not in primes_below(self.p + 1):
            primes = primes_below(max(2 * self.p, 12))
            nearest = min((q for q in primes if q >= 5), key=lambda q: abs(q - self.p))
            raise ValueError(f"p must be a prime of at least 5, but p = {self.p}; the nearest is {nearest}")
        if self.task == "masked" and self.p <= 11:
            raise ValueError(
                f"task masked leaves out q = 2, 3, 5, 7 and needs p > 11, but p = {self.p}; use p = 13 or more"
            )
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
        """`train_fraction` of the p² samples, rounded down: 3,830 for p = 113 and 0.3 (3.4)."""
        # Rounded first, since 0.29 * 100 is 28.999999999999996.
        return int(round(self.train_fraction * self.p**2, 6))

    @property
    def n_validation(self) -> int:
        """`validation_samples`, or where unset 1,000 but at most half of what training leaves."""
        if self.validation_samples is not None:
            return self.validation_samples
        return min(1000, (self.p**2 - self.n_train) // 2)

    @property
    def n_test(self) -> int:
        """What neither trains nor validates."""
        return self.p**2 - self.n_train - self.n_validation

    @property
    def accuracy_threshold(self) -> float:
        """What an accuracy on the validation split must exceed to be at the target: a quarter of a sample less than
        the fewest samples that reach it, which is more than rounding takes."""
        return (ceil(round(self.target_accuracy * self.n_validation, 6)) - 0.25) / self.n_validation

    @property
    def moduli(self) -> tuple[int, ...]:
        """The number of classes of each task: every prime q < p, or p alone for `nanda`."""
        return (self.p,) if self.task == "nanda" else primes_below(self.p)

    @property
    def scored(self) -> tuple[bool, ...]:
        """Which tasks enter the loss and the score: all but q in {2, 3, 5, 7} of `masked`."""
        return tuple(self.task != "masked" or q not in MASKED_MODULI for q in self.moduli)

    @property
    def evaluation_interval(self) -> int:
        """The largest divisor of `epochs` that is not above `evaluate_every`: the last epoch is evaluated."""
        return max(k for k in range(1, min(self.evaluate_every, self.epochs) + 1) if self.epochs % k == 0)
