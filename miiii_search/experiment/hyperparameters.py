"""The hyperparameters of a run: the paper's six, and the optimizer's options, which are off by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from miiii_search.experiment._base import Spec

USED_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "weight_decay": ("optimizer", ("adamw", "muon")),
    "learning_rate": ("optimizer", ("adamw", "muon")),
    "adam_beta2": ("optimizer", ("adamw", "muon")),
    "muon_learning_rate": ("optimizer", ("muon",)),
    "muon_weight_decay": ("optimizer", ("muon",)),
    "muon_momentum": ("optimizer", ("muon",)),
    "lion_learning_rate": ("optimizer", ("lion",)),
    "lion_weight_decay": ("optimizer", ("lion",)),
    "lion_beta1": ("optimizer", ("lion",)),
    "lion_beta2": ("optimizer", ("lion",)),
    "weight_ceiling_ratio": ("weight_ceiling", ("row", "matrix")),
}
"""The conditional hyperparameters: the hyperparameter that each depends on, and the values with which it is used.

A search space may have all of them. A point then has only those that its run uses.
"""


def is_used(name: str, values: Mapping[str, object]) -> bool:
    """Return whether a run uses a hyperparameter.

    Args:
        name: Name of the hyperparameter.
        values: The hyperparameters of the run, by name. Others have their defaults.
    """
    if name not in USED_ONLY_WITH:
        return True
    other, needed = USED_ONLY_WITH[name]
    return values.get(other, Hyperparameters.model_fields[other].default) in needed


def _off(default: Any) -> Any:
    """Return a field that is left out of files while it has its default, so that earlier versions read them."""
    return Field(default=default, exclude_if=lambda value: value == default)


class Hyperparameters(Spec):
    """The six hyperparameters of Table 1, and options of the training step.

    The defaults are the paper's best configuration (Table 2). docs/explanation/training-step.md has the equations.
    """

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the residual stream that a training step drops, after attention and after the feed-forward layer."""
    grokfast_lambda: Annotated[float, Field(ge=0)] = 0.5
    """Factor λ by which the slow part of the gradients is amplified (Grokfast, Eq. 13); 0 turns the filter off."""
    weight_decay: Annotated[float, Field(ge=0)] = 1 / 3
    """Decoupled weight decay of AdamW, on every matrix that it trains."""
    d_model: Annotated[int, Field(gt=0, le=65536)] = 256
    """Width of the residual stream. Must be divisible by `n_heads`. Each width needs its own compiled program."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Learning rate of AdamW, constant unless it is annealed."""
    n_heads: Annotated[int, Field(gt=0)] = 4
    """Number of attention heads. Each number needs its own compiled program."""
    optimizer: Literal["adamw", "muon", "lion"] = _off("adamw")
    """Optimizer. `muon` trains the hidden matrices with Muon, and the embeddings and the unembedding with AdamW.

    Default: the paper's, `adamw`. Each optimizer needs its own compiled program.
    """
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = _off(0.98)
    """Decay β2 of AdamW's average of squared gradients. Default: the paper's."""
    muon_learning_rate: Annotated[float, Field(gt=0)] = _off(0.02)
    """For `muon`: learning rate of the hidden matrices. Default: that of Muon's author."""
    muon_weight_decay: Annotated[float, Field(ge=0)] = _off(0.1)
    """For `muon`: decoupled weight decay of the hidden matrices.

    Default: with 1 and half of the learning rate, a first trial was no faster than AdamW.
    """
    muon_momentum: Annotated[float, Field(ge=0, lt=1)] = _off(0.95)
    """For `muon`: decay β of the average of the gradients. Default: that of Muon's author."""
    lion_learning_rate: Annotated[float, Field(gt=0)] = _off(1e-4)
    """For `lion`: learning rate. Default: a third of AdamW's, as Lion's authors advise."""
    lion_weight_decay: Annotated[float, Field(ge=0)] = _off(1.0)
    """For `lion`: decoupled weight decay. Default: three times AdamW's, as Lion's authors advise."""
    lion_beta1: Annotated[float, Field(ge=0, lt=1)] = _off(0.9)
    """For `lion`: weight β1 of the momentum in the direction of a step. Default: that of Lion's authors."""
    lion_beta2: Annotated[float, Field(ge=0, lt=1)] = _off(0.99)
    """For `lion`: decay β2 of the momentum. Default: that of Lion's authors."""

    output: Literal["softmax", "stablemax"] = _off("softmax")
    """Function that turns logits into probabilities in the loss. Default: the paper's, `softmax`."""
    temperature: Annotated[float, Field(gt=0)] = _off(1.0)
    """Temperature τ of the output: the loss is that of the logits divided by it. Default: the paper's, 1."""
    gradient_projection: Literal["none", "orthogonal"] = _off("none")
    """Projection of each matrix's gradient. `orthogonal` removes the part along the weights (⊥Grad).

    Default: the paper's, `none`.
    """
    embedding_rate_factor: Annotated[float, Field(ge=0)] = _off(1.0)
    """Learning rate of the token and position embeddings, as a multiple of their optimizer's. Default: the same."""
    unembedding_rate_factor: Annotated[float, Field(ge=0)] = _off(1.0)
    """Learning rate of the unembedding, as a multiple of its optimizer's. Default: the same."""
    weight_ceiling: Literal["none", "row", "matrix"] = _off("none")
    """Norms that each step cuts to a ceiling: those of rows, or of whole matrices. Default: the paper's, `none`.

    A row is the vector of a token or position, or the weights of one output.
    """
    weight_ceiling_ratio: Annotated[float, Field(gt=0)] = _off(1.0)
    """The ceiling, as a multiple of the norm before the first epoch. Default: that norm."""
    freeze_embeddings: Literal["never", "solved"] = _off("never")
    """Time from which on the embeddings and the unembedding do not change. Default: the paper's, `never`.

    `solved`: from the first evaluation on at which every scored task is at the target.
    """

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Hyperparameters:
        if self.d_model % self.n_heads:
            nearest = max(h for h in range(1, self.n_heads) if self.d_model % h == 0)
            raise ValueError(
                f"d_model must be divisible by n_heads, but d_model = {self.d_model} and "
                f"n_heads = {self.n_heads}; n_heads = {nearest} would do"
            )
        return self
