"""The switches of a program: what its training step computes, as opposed to the numbers that it computes with."""

from __future__ import annotations

from dataclasses import dataclass, fields

from miiii_search.experiment.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Switches:
    """The parts of the training step that change a program. With the defaults it is the paper's.

    An option that is off has no part in the program, so that its results stay the same bit for bit. What a switch turns
    on is traced, so that runs with other numbers share the program.
    """

    optimizer: str = "adamw"
    """The hyperparameter `optimizer`."""
    adam_beta2: bool = False
    """Whether β2 is traced. As a constant, 1 − β2 is rounded only once."""

    @staticmethod
    def of(hyperparameters: Hyperparameters) -> Switches:
        """Return the switches of the program that trains a run."""
        default = Hyperparameters.model_fields["adam_beta2"].default
        has_adam = hyperparameters.optimizer != "lion"
        return Switches(
            optimizer=hyperparameters.optimizer,
            adam_beta2=has_adam and hyperparameters.adam_beta2 != default,
        )

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the hyperparameters that the switches add to the traced ones."""
        prefix = f"{self.optimizer}_"
        of_optimizer = [name for name in Hyperparameters.model_fields if name.startswith(prefix)]
        return (*of_optimizer, *["adam_beta2"] * self.adam_beta2)

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
