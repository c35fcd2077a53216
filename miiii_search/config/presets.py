"""Presets: studies and single configurations that come with the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.config.suggestions import suggest
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay

TABLE_1: dict[str, Any] = {
    "dropout": (0.0, 1 / 2, 1 / 5, 1 / 10),
    "grokfast_lambda": (0.0, 1 / 2, 2.0),
    "weight_decay": (0.0, 1 / 10, 1 / 2, 1.0),
    "d_model": (128, 256),
    "learning_rate": (3e-4, 1e-4),
    "n_heads": (4, 8),
}
"""The paper's search space (Table 1): 4·3·4·2·2·2 = 384 configurations."""

TABLE_2 = Hyperparameters(
    dropout=1 / 10, grokfast_lambda=1 / 2, weight_decay=1 / 3, d_model=256, learning_rate=3e-4, n_heads=4
)
"""The paper's best configuration. Its weight decay is not in Table 1, so it is not a point of that space."""

AUTHORS_RUN = TABLE_2.model_copy(update={"weight_decay": 0.33})
"""Table 2 as in the authors' configuration file (public code, commit d201562)."""

AUTHORS_EXPERIMENT = Experiment(
    train_fraction=0.5,
    validation_samples=5385,  # their code validates on all 6,385 other samples; here 1,000 of them are the test split
    dropout_mask="batch",
    initialisation="public-code",
    grokfast_start="zero",
    loss_reduction="mean",
)
"""The experiment behind the paper's figures, as far as the public code (commit d201562) tells."""

FAST = Hyperparameters(dropout=0.2, grokfast_lambda=2.0, weight_decay=1.0, d_model=256, learning_rate=1e-3, n_heads=4)
"""A configuration that solves all 29 tasks on two cores. docs/research/reproduction.md describes how it was found."""


@dataclass(frozen=True)
class Preset:
    """A study, and single configurations to train. The first one is the default."""

    summary: str
    spec: StudySpec
    configurations: dict[str, Hyperparameters] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "demo": Preset(
        "nanda at p = 31: 12 configurations, some of which grok, in minutes on a laptop",
        StudySpec(
            preset="demo",
            experiment=Experiment(p=31, task="nanda", train_fraction=0.6, validation_samples=200, epochs=3072),
            hyperparameters=Hyperparameters(d_model=128, n_heads=4, learning_rate=1e-3),
            space={"dropout": (0.0, 0.1), "grokfast_lambda": (0.0, 0.5, 2.0), "weight_decay": (0.5, 1.0)},
        ),
        {
            "demo-best": Hyperparameters(
                dropout=0.1, grokfast_lambda=0.5, weight_decay=1.0, d_model=128, learning_rate=1e-3, n_heads=4
            )
        },
    ),
    "paper": Preset(
        "Table 1 on miiii at p = 113: 384 configurations of 65,536 epochs",
        StudySpec(preset="paper", space=TABLE_1),
        {"paper-best": TABLE_2},
    ),
    "fast": Preset(
        "miiii at p = 113, solved on two cores in 44 minutes: 90 % of the samples, and annealed dropout",
        StudySpec(
            preset="fast",
            experiment=Experiment(
                train_fraction=0.9,
                validation_samples=600,
                epochs=12288,
                annealing=Annealing(
                    dropout=LinearDecay(start=2048, end=6144, end_factor=0.25),
                    learning_rate=LinearDecay(start=9216, end=11264, end_factor=0.1),
                ),
            ),
            hyperparameters=FAST,
            space={"dropout": (FAST.dropout,)},
            pruning=Pruning(rule="none"),
        ),
        {"fast-best": FAST},
    ),
    "narrow": Preset(
        "miiii at p = 113 for two cores: narrow networks that generalise before they memorise, though not on all tasks",
        StudySpec(
            preset="narrow",
            experiment=Experiment(train_fraction=0.7, epochs=8192),
            hyperparameters=Hyperparameters(weight_decay=1.0, learning_rate=1e-3),
            space={"dropout": (0.1, 0.2), "d_model": (128, 192), "weight_decay": (0.5, 1.0)},
        ),
        {"narrow-best": Hyperparameters(dropout=0.2, weight_decay=1.0, d_model=192, learning_rate=1e-3)},
    ),
    "authors-code": Preset(
        "Table 1 as the paper's authors ran it: their training fraction, masks, initialisation, filter and loss",
        StudySpec(preset="authors-code", experiment=AUTHORS_EXPERIMENT, space=TABLE_1),
        {"paper-best": AUTHORS_RUN},
    ),
}


def get_preset(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        MiiiiSearchError: No preset has this name.
    """
    if name not in PRESETS:
        raise MiiiiSearchError(f"there is no preset `{name}`{suggest(name, list(PRESETS))}")
    return PRESETS[name]


def get_configuration(preset: str, name: str | None) -> tuple[Experiment, Hyperparameters]:
    """Return the experiment and the hyperparameters of a configuration.

    Args:
        preset: The preset's name.
        name: The configuration's name. By default the preset's first configuration.

    Raises:
        MiiiiSearchError: There is no such preset or configuration.
    """
    chosen = get_preset(preset)
    if name is None:
        name = next(iter(chosen.configurations))
    if name not in chosen.configurations:
        raise MiiiiSearchError(
            f"preset {preset} has no configuration `{name}`{suggest(name, list(chosen.configurations))}"
        )
    return chosen.spec.experiment, chosen.configurations[name]
