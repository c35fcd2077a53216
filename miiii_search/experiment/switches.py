"""The switches of a program: what its training step computes, as opposed to the numbers that it computes with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from miiii_search.experiment.hyperparameters import USED_ONLY_WITH, Hyperparameters, is_used

_CHOICES = ("optimizer", "output", "gradient_projection", "weight_ceiling", "freeze_embeddings")
"""Switches that are hyperparameters themselves."""

_NUMBERS = {
    "adam_beta2": ("adam_beta2",),
    "rate_factors": ("embedding_rate_factor", "unembedding_rate_factor"),
    "temperature": ("temperature",),
}
"""Switches that are on if one of some numbers differs from its default."""

_ALWAYS_TRACED = ("learning_rate", "weight_decay")


@dataclass(frozen=True)
class Switches:
    """The parts of the training step that change a program. With the defaults it is the paper's.

    An option that is off has no part in the program, so that its results stay the same bit for bit. What a switch turns
    on is traced, so that runs with other numbers share the program.
    """

    optimizer: str = "adamw"
    """The hyperparameter of this name, like the four below."""
    output: str = "softmax"
    gradient_projection: str = "none"
    weight_ceiling: str = "none"
    freeze_embeddings: str = "never"
    adam_beta2: bool = False
    """Whether β2 is traced. As a constant, 1 − β2 is rounded only once."""
    rate_factors: bool = False
    """Whether the embeddings or the unembedding have learning rates of their own."""
    temperature: bool = False
    """Whether logits are divided by a temperature."""

    @staticmethod
    def of(hyperparameters: Hyperparameters) -> Switches:
        """Return the switches of the program that trains a run."""
        chosen: dict[str, Any] = {name: getattr(hyperparameters, name) for name in _CHOICES}
        differing = {
            switch: any(
                is_used(name, chosen) and getattr(hyperparameters, name) != Hyperparameters.model_fields[name].default
                for name in names
            )
            for switch, names in _NUMBERS.items()
        }
        return Switches(**{**chosen, **differing})

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the hyperparameters that the switches add to the traced ones."""
        conditional = [name for name in USED_ONLY_WITH if name not in _ALWAYS_TRACED and is_used(name, vars(self))]
        of_numbers = [name for switch, names in _NUMBERS.items() if getattr(self, switch) for name in names]
        return (*(name for name in conditional if name not in _NUMBERS), *of_numbers)

    def __str__(self) -> str:
        """Return the switches that are on as text, such as `optimizer=muon`; an empty text if there are none."""
        changed = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return " ".join(
            name if value is True else f"{name}={value}"
            for (name, value), field in zip(changed, fields(self), strict=True)
            if value != field.default
        )


PAPER = Switches()
"""The switches of the paper's training step."""
